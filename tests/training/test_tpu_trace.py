"""The whole distributed program, traced for eight TPU cores that are not there: see imaginary_cores."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import function_def_to_graph

from tests.training import tiny
from tests.training.imaginary_cores import CORES, STRUCTURE, host_operations, step_function, trace

pytestmark = pytest.mark.slow

GROUP = 4


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
    def start(distribution):
        return tiny.start(
            distribution,
            global_batch_size=2 * CORES,
            group=GROUP,
            spec=tiny.RANDOM_SPEC,
            dtype="mixed_bfloat16",
            gradient_clip_norm=tiny.CLIP_NORM,
        )

    training, library = trace(start, timed=True)
    with tf.Graph().as_default():
        tf.graph_util.import_graph_def(tf.compat.v1.GraphDef(library=library))
        step = function_def_to_graph.function_def_to_graph(step_function(library))
        return Program(training, list(library.function), step)


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
    assert host_operations(found) == set()


@pytest.mark.parametrize("op", ["PyFunc", "DecodeJpeg", "ResizeBicubic", "PrintV2"])
def test_operations_of_the_host_are_known_as_such(op):
    assert host_operations([op]) == {op}


def test_masks_are_drawn_in_the_program_and_hold_no_state(program):
    found = set(replicated(program))
    assert any(op.startswith("StatelessRandomUniform") for op in found)
    assert not found & {"RandomUniform", "RandomStandardNormal", "StatefulUniform"}
