"""The whole distributed program, traced for eight TPU cores that are not there.

TensorFlow asks the resolver alone what devices there are, so inside a tf.Graph, where nothing is placed
or run, a real TPUStrategy can be made for imaginary ones.
"""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.client.session import _DeviceAttributes
from tensorflow.python.framework import function_def_to_graph, kernels
from tensorflow.python.tpu.tpu_system_metadata import TPUSystemMetadata

from tests.training import tiny
from training.devices.distribution import Distribution
from training.step.state import TrainState
from training.step.train_step import make_train_loop

pytestmark = pytest.mark.slow

CORES, GROUP = 8, 4
# They mark what is replicated, and are gone when the program is compiled.
STRUCTURE = {
    "TPUReplicateMetadata",
    "TPUReplicatedInput",
    "TPUReplicatedOutput",
    "TPUCompilationResult",
}
TPU_ONLY = {"CrossReplicaSum"}  # its kernel is in the tensorflow-tpu wheel alone


class ImaginaryCores(tf.distribute.cluster_resolver.TPUClusterResolver):
    """Reports TPU cores of this host that do not exist."""

    tpu_hardware_feature = None

    def __init__(self):
        pass

    def get_tpu_system_metadata(self):
        names = [f"TPU:{i}" for i in range(CORES)] + ["CPU:0"]
        devices = tuple(
            _DeviceAttributes(f"/job:localhost/replica:0/task:0/device:{name}", name[:3], 0, 0)
            for name in names
        )
        return TPUSystemMetadata(
            num_cores=CORES,
            num_hosts=1,
            num_of_cores_per_host=CORES,
            topology=None,
            devices=devices,
        )

    def cluster_spec(self):
        return tf.train.ClusterSpec({})

    def master(self, *args, **kwargs):
        return ""


@dataclasses.dataclass(frozen=True, eq=False)
class Zeros:
    """Batches without an input pipeline, which is no part of the replicated program."""

    batch_spec: dict

    def __next__(self):
        return {name: tf.zeros(spec.shape, spec.dtype) for name, spec in self.batch_spec.items()}


@dataclasses.dataclass
class Program:
    """The traced loop, and the function in it that is the step."""

    training: tiny.Training
    functions: list
    step: tf.Graph

    def reductions(self):
        """(tensor that is reduced, groups of replicas) of each sum over replicas."""
        for op in self.step.get_operations():
            if op.type == "CrossReplicaSum":
                yield op.inputs[0], tf.get_static_value(op.inputs[1]).tolist()


@pytest.fixture(scope="module")
def program():
    with pytest.MonkeyPatch.context() as patch, tf.Graph().as_default():
        patch.setattr(TrainState, "to_arrays", lambda self: {})  # nothing has a value here
        distribution = Distribution(tf.distribute.TPUStrategy(ImaginaryCores()))
        training = tiny.start(
            distribution,
            global_batch_size=2 * CORES,
            group=GROUP,
            spec=tiny.RANDOM_SPEC,
            dtype="mixed_bfloat16",
            gradient_clip_norm=tiny.CLIP_NORM,
        )
        loop = make_train_loop(
            training.state, training.recipe, distribution, training.batch_spec, timed=True
        ).get_concrete_function(Zeros(training.batch_spec), tf.TensorSpec([], tf.int32))
        library = loop.graph.as_graph_def().library
    functions = list(library.function)
    (step,) = [f for f in functions if f.signature.name.startswith("__inference_step_")]
    with tf.Graph().as_default():
        tf.graph_util.import_graph_def(tf.compat.v1.GraphDef(library=library))
        return Program(training, functions, function_def_to_graph.function_def_to_graph(step))


def test_it_is_eight_tpu_cores(program):
    distribution = program.training.distribution
    assert distribution.is_tpu
    assert distribution.num_replicas == CORES
    assert distribution.description == "8 TPU cores"


def test_gradients_statistics_and_metrics_are_summed_over_all_cores_in_one_round(program):
    (everything,) = [x for x, groups in program.reductions() if groups == [[*range(CORES)]]]
    values = program.training.state.variables
    elements = sum(int(np.prod(v.shape)) for v in values.weights + values.statistics)
    assert everything.shape == [elements + 3]  # loss, cross entropy and top 1


def test_each_batch_norm_is_reduced_within_its_group_once_forward_and_once_back(program):
    groups = [[0, 1, 2, 3], [4, 5, 6, 7]]
    sums = [x for x, found in program.reductions() if found == groups]
    layers = [v.path for v in program.training.state.network.trainable_variables]
    count = sum(path.endswith("_bn/gamma") for path in layers)
    assert len(sums) == 2 * count
    assert {x.dtype for x in sums} == {tf.float32}
    assert all(x.shape.rank == 2 and x.shape[0] == 2 for x in sums)
    assert len(list(program.reductions())) == 2 * count + 1, "something else is reduced too"


def replicated(program):
    """Every operation that a core runs: those marked as such in the loop, and all of the step."""
    (body,) = [f for f in program.functions if f.signature.name.startswith("while_body")]
    yield from (node.op for node in body.node_def if node.attr["_tpu_replicate"].s)
    for function in program.functions:
        if not function.signature.name.startswith("while_"):
            yield from (node.op for node in function.node_def)


def test_no_operation_of_the_host_sits_inside_the_replicated_program(program):
    """Every operation is one that XLA can compile; what only a host can do has no such kernel."""
    found = set(replicated(program)) - STRUCTURE
    assert {"Conv2D", "CrossReplicaSum", "AssignVariableOp"} <= found
    hosts = {op for op in found if not compiles(op)}
    assert hosts <= TPU_ONLY


@pytest.fixture(scope="module", autouse=True)
def xla():
    """XLA's kernels are registered by the first program that is compiled."""
    tf.function(lambda: tf.constant(1.0) + 1.0, jit_compile=True)()


def compiles(op):
    registered = kernels.get_registered_kernels_for_op(op).kernel
    return any(kernel.device_type.startswith("XLA_") for kernel in registered)


@pytest.mark.parametrize("op", ["PyFunc", "DecodeJpeg", "ResizeBicubic", "PrintV2"])
def test_operations_of_the_host_are_known_as_such(op):
    assert not compiles(op)


def test_masks_are_drawn_in_the_program_and_hold_no_state(program):
    found = set(replicated(program))
    assert any(op.startswith("StatelessRandomUniform") for op in found)
    assert not found & {"RandomUniform", "RandomStandardNormal", "StatefulUniform"}
