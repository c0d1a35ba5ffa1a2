"""Assignment on the device: force matches, ties, padding, and a batch as its images alone."""

import numpy as np
import pytest
import tensorflow as tf

from efficientnet.detection import Anchors, anchor_boxes
from tasks.detection.assignment import assign

ANCHORS = anchor_boxes(Anchors(), 64)


def assigned(boxes, classes):
    """Targets of one image as arrays."""
    targets = assign(
        tf.constant([boxes], tf.float32), tf.constant([classes], tf.int32), tf.constant(ANCHORS)
    )
    return [x.numpy()[0] for x in targets]


def test_padding_takes_no_anchor():
    # An all-zero box would be forced on anchor 0.
    classes, codes, positives = assigned(np.zeros([3, 4]), [-1, -1, -1])
    assert (classes == -1).all()
    assert (codes == 0).all()
    assert positives == 0


def test_a_box_that_overlaps_nothing_still_gets_an_anchor():
    classes, _, positives = assigned([[500, 500, 510, 510]], [2])
    assert positives == 1
    assert classes[0] == 2


def test_the_lower_box_wins_an_anchor_that_two_want():
    box = ANCHORS[100].tolist()
    classes, _, _ = assigned([box, box], [3, 4])
    assert classes[100] == 3
    assert not (classes == 4).any()


def test_a_forced_anchor_stays_with_its_box():
    # The second box is the anchor itself; the first, a sliver inside, has no better anchor.
    anchor = ANCHORS[100]
    y, x = (anchor[:2] + anchor[2:]) / 2
    sliver = [y - 0.5, x - 0.5, y + 0.5, x + 0.5]
    alone, _, _ = assigned([sliver], [7])
    both, _, _ = assigned([sliver, anchor.tolist()], [7, 8])
    assert (alone == 7).sum() == 1
    np.testing.assert_array_equal(both == 7, alone == 7)


def test_images_of_a_batch_do_not_see_each_other():
    random = np.random.default_rng(0)
    first = random.uniform(0, 40, [2, 5, 2])
    boxes = np.concatenate([first, first + random.uniform(4, 24, [2, 5, 2])], -1)
    classes = np.array([[0, 1, 2, -1, -1], [3, 3, 1, 0, 2]])
    together = assign(
        tf.constant(boxes, tf.float32), tf.constant(classes, tf.int32), tf.constant(ANCHORS)
    )
    for i in range(2):
        for found, expected in zip(assigned(boxes[i], classes[i]), together, strict=True):
            np.testing.assert_array_equal(found, expected[i])


def test_memory_does_not_grow_with_the_number_of_boxes():
    traced = tf.function(assign, autograph=False).get_concrete_function(
        tf.TensorSpec([1, 100, 4]), tf.TensorSpec([1, 100], tf.int32), tf.TensorSpec([3069, 4])
    )
    bodies = [traced.graph, *(x.graph for x in _functions(traced.graph))]
    sizes = [
        tensor.shape.num_elements() or 0
        for graph in bodies
        for operation in graph.get_operations()
        for tensor in operation.outputs
    ]
    assert max(sizes) <= 3069 * 5


def _functions(graph):
    names = {
        attribute.func.name
        for operation in graph.get_operations()
        for attribute in operation.node_def.attr.values()
        if attribute.HasField("func")
    }
    return [graph._get_function(name) for name in names]


@pytest.mark.parametrize("count", [1, 100])
def test_shapes_are_static(count):
    traced = tf.function(assign, autograph=False).get_concrete_function(
        tf.TensorSpec([2, count, 4]), tf.TensorSpec([2, count], tf.int32), tf.TensorSpec([9, 4])
    )
    assert [x.shape for x in traced.outputs] == [[2, 9], [2, 9, 4], [2]]
