"""Eight TPU cores that are not there, and what a program that is traced for them consists of.

TensorFlow asks the resolver alone what devices there are, so inside a tf.Graph, where nothing is placed
or run, a real TPUStrategy can be made for imaginary ones.
"""

import dataclasses

import pytest
import tensorflow as tf
from tensorflow.python.client.session import _DeviceAttributes
from tensorflow.python.framework import kernels
from tensorflow.python.tpu.tpu_system_metadata import TPUSystemMetadata

from training.devices.distribution import Distribution
from training.step.state import TrainState
from training.step.train_step import make_train_loop

CORES = 8
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


def trace(start, **options):
    """Trace the loop of `start(distribution)`, a tiny.Training.

    Args:
      start: called with the distribution over the imaginary cores.
      **options: of `make_train_loop`.

    Returns:
      The training, and the library of functions of the graph.
    """
    with pytest.MonkeyPatch.context() as patch, tf.Graph().as_default():
        patch.setattr(TrainState, "to_arrays", lambda self: {})  # nothing has a value here
        patch.setattr(tf.Tensor, "__eq__", equal_in_functions)
        patch.setattr(tf.Tensor, "__ne__", not_equal_in_functions)
        distribution = Distribution(tf.distribute.TPUStrategy(ImaginaryCores()))
        training = start(distribution)
        loop = make_train_loop(
            training.state, training.recipe, distribution, training.batch_spec, **options
        ).get_concrete_function(Zeros(training.batch_spec), tf.TensorSpec([], tf.int32))
        return training, loop.graph.as_graph_def().library


def equal_in_functions(tensor, other):
    """Compare as == does in the functions of a real start; within a tf.Graph it is identity there too."""
    return tf.equal(tensor, other) if tensor.graph.building_function else tensor is other


def not_equal_in_functions(tensor, other):
    if tensor.graph.building_function:
        return tf.not_equal(tensor, other)
    return tensor is not other


def step_function(library):
    """The function of the step, which every core runs."""
    (step,) = [f for f in library.function if f.signature.name.startswith("__inference_step_")]
    return step


def host_operations(operations):
    """Those that XLA cannot compile, whose place is the host."""
    tf.function(lambda: tf.constant(1.0) + 1.0, jit_compile=True)()  # registers XLA's kernels
    return {op for op in operations if not compiles(op)} - STRUCTURE - TPU_ONLY


def compiles(op):
    registered = kernels.get_registered_kernels_for_op(op).kernel
    return any(kernel.device_type.startswith("XLA_") for kernel in registered)
