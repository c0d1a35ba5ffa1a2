"""Lists of tensors as one vector, and what its layout knows of the single variables."""

import numpy as np
import tensorflow as tf

from training.step.packed import Layout, Packed, pack, unpack

TENSORS = [tf.reshape(tf.range(6.0), [2, 3]), tf.constant(6.0), tf.constant([7.0, 8.0])]
LAYOUT = Layout(("a", "b", "c"), (6, 1, 2))


def test_packing_keeps_the_order_of_tensors_and_of_their_elements():
    np.testing.assert_array_equal(pack(TENSORS), np.arange(9.0))


def test_unpacking_undoes_packing():
    for found, expected in zip(unpack(pack(TENSORS), TENSORS), TENSORS, strict=True):
        assert found.shape == expected.shape
        np.testing.assert_array_equal(found, expected)


def test_a_part_is_taken_out_and_put_back():
    vector, part = pack(TENSORS), LAYOUT.without(frozenset({"b"}))
    assert part == Layout(("a", "c"), (6, 2))
    taken = LAYOUT.take(vector, part)
    np.testing.assert_array_equal(taken, [0, 1, 2, 3, 4, 5, 7, 8])
    np.testing.assert_array_equal(
        LAYOUT.put(vector, part, -taken), [0, -1, -2, -3, -4, -5, 6, -7, -8]
    )


def test_of_everything_nothing_is_copied():
    vector = pack(TENSORS)
    assert LAYOUT.take(vector, LAYOUT) is vector
    assert LAYOUT.put(vector, LAYOUT, vector) is vector


def test_a_part_of_nothing_is_empty():
    nothing = LAYOUT.without(frozenset(LAYOUT.names))
    assert nothing == Layout((), ())
    assert LAYOUT.take(pack(TENSORS), nothing).shape == [0]
    np.testing.assert_array_equal(LAYOUT.put(pack(TENSORS), nothing, tf.zeros([0])), np.arange(9.0))


def test_values_of_variables_are_chosen_and_replaced_by_name():
    part = LAYOUT.without(frozenset({"a"}))
    assert LAYOUT.choose(["x", "y", "z"], part) == ["y", "z"]
    assert LAYOUT.replace(["x", "y", "z"], part, ["v", "w"]) == ["x", "v", "w"]


def test_norms_are_those_of_the_variables():
    expected = [np.linalg.norm(t.numpy()) for t in TENSORS]
    np.testing.assert_allclose(Packed(pack(TENSORS), LAYOUT).norms(), expected, rtol=1e-6)


def test_a_number_for_each_variable_is_spread_over_its_elements():
    packed, numbers = Packed(pack(TENSORS), LAYOUT), np.array([2.0, 2.0, 5.0], np.float32)
    expected = [2.0] * 7 + [5.0] * 2
    np.testing.assert_array_equal(packed.spread(numbers), expected)
    np.testing.assert_array_equal(packed.spread(tf.constant(numbers)), expected)
