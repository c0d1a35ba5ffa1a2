"""Mixup and cutmix in the published code's pairs; its numbers are rows of proofs.parity_v2."""

import numpy as np
import tensorflow as tf

from input_pipeline.augment.published_mixing import mix_reversed

CLASSES = 5
RANDOM = np.random.default_rng(0)
IMAGES = tf.constant(RANDOM.integers(0, 256, (6, 12, 12, 3)), tf.uint8)
LABELS = tf.range(6) % CLASSES
SEEDS = tf.stack([tf.fill([6], 9), tf.range(6)], axis=1)


def mix(**alphas):
    images, shares = mix_reversed(IMAGES, LABELS, SEEDS, num_classes=CLASSES, **alphas)
    assert (images.shape, images.dtype) == (IMAGES.shape, tf.uint8)
    np.testing.assert_allclose(tf.reduce_sum(shares, 1), 1, atol=1e-6)
    return images.numpy(), shares.numpy()


def partners(shares, row):
    """The classes that an image shows beside its own."""
    return set(np.flatnonzero(shares[row])) - {row % CLASSES}


def test_without_an_alpha_nothing_is_mixed():
    images, shares = mix()
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(shares, np.eye(CLASSES)[LABELS])


def test_one_kind_pairs_the_batch_with_its_reverse():
    _, shares = mix(mixup_alpha=1.0)
    assert [partners(shares, row) for row in range(1, 5)] == [{4}, {3}, {2}, {1}]
    assert (shares[np.arange(6), LABELS] >= 0.5).all()


def test_both_kinds_take_a_half_each_and_pair_it_with_its_own_reverse():
    images, shares = mix(mixup_alpha=1.0, cutmix_alpha=1.0)
    given = IMAGES.numpy()
    assert (partners(shares, 0), partners(shares, 2)) == ({2}, {0})
    assert (partners(shares, 3), partners(shares, 4)) == ({0}, set())  # 5 is of class 0; 4 is alone
    # Cutmix shows pixels of the one or the other image; its labels count one area for all.
    for row in (3, 5):
        pairs = (images[row] == given[row]) | (images[row] == given[8 - row])
        assert pairs.all()
    assert shares[3, 3] == shares[5, 0]


def test_the_same_seeds_mix_the_same():
    for one, other in zip(mix(cutmix_alpha=0.5), mix(cutmix_alpha=0.5), strict=True):
        np.testing.assert_array_equal(one, other)
