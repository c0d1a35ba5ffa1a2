"""Mixup, cutmix and random erasing."""

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.augment import mixing

CLASSES = 7


def batch(size=6, height=20, width=14, seed=0):
    images = np.random.default_rng(seed).integers(0, 256, (size, height, width, 3))
    return tf.constant(images, tf.uint8), tf.range(size) % CLASSES


def seed(index=0):
    return tf.constant([9, index], tf.int64)


def seeds(size=6, first=0):
    return tf.stack([tf.fill([size], 9), first + tf.range(size)], axis=1)


def neighbours(values):
    return np.asarray(values).reshape(-1, 2, *values.shape[1:])[:, ::-1].reshape(values.shape)


def own_shares(labels):
    """The weight of each image itself; of images whose partner is of another class."""
    rows = np.arange(len(labels))
    return labels.numpy()[rows, rows % CLASSES]


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixup_blends_images_with_their_neighbours_as_labels_say(alpha):
    images, labels = batch()
    mixed, shares = mixing.mixup(images, labels, seeds(), alpha=alpha, num_classes=CLASSES)
    assert mixed.dtype == tf.uint8
    assert shares.shape == [6, CLASSES]
    own = own_shares(shares)[:, None, None, None]
    assert (own >= 0.5).all()
    expected = images.numpy() * own + neighbours(images) * (1 - own)
    np.testing.assert_allclose(mixed.numpy(), expected, atol=0.5)
    np.testing.assert_allclose(shares.numpy().sum(axis=1), 1)
    np.testing.assert_allclose(
        shares.numpy()[np.arange(6), neighbours(np.arange(6))], 1 - own[:, 0, 0, 0]
    )


def test_mixup_shares_follow_the_beta_distribution_folded_at_one_half():
    """For alpha = 1 the larger of lambda and 1 - lambda is uniform on 1/2 .. 1."""
    images, labels = tf.zeros([2000, 1, 1, 3], tf.uint8), tf.range(2000) % 2
    mixup = tf.function(mixing.mixup)
    _, shares = mixup(images, labels, seeds(2000), alpha=1.0, num_classes=2)
    own = shares.numpy().max(axis=1)
    assert abs(own.mean() - 0.75) < 0.02
    assert abs(np.quantile(own, 0.1) - 0.55) < 0.02
    _, shares = mixup(images, labels, seeds(2000), alpha=0.05, num_classes=2)
    assert shares.numpy().max(axis=1).mean() > 0.95
    assert np.isfinite(shares).all()


def test_cutmix_shows_pixels_of_both_in_the_labels_proportion():
    images, labels = batch(height=32, width=24)
    mixed, shares = mixing.cutmix(images, labels, seeds(first=3), alpha=1.0, num_classes=CLASSES)
    own = (mixed == images).numpy().all(axis=-1)
    partner = (mixed == neighbours(images)).numpy().all(axis=-1)
    assert (own ^ partner).all()
    np.testing.assert_allclose(own.mean(axis=(1, 2)), own_shares(shares), atol=1e-6)
    np.testing.assert_allclose(shares.numpy().sum(axis=1), 1, atol=1e-6)
    rectangles = 0
    for shown in partner:
        rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
        if len(rows):
            assert shown[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
            rectangles += 1
    assert rectangles >= 4


def test_the_last_image_of_an_odd_batch_is_its_own_partner():
    images, labels = batch(5)
    for mix in (mixing.mixup, mixing.cutmix):
        mixed, shares = mix(images, labels, seeds(5), alpha=1.0, num_classes=CLASSES)
        np.testing.assert_array_equal(mixed[4], images[4])
        np.testing.assert_allclose(shares[4], tf.one_hot(4, CLASSES))


def test_mixing_follows_from_the_seed_alone_eagerly_and_in_a_dataset():
    images, labels = batch()

    def mix(index):
        return mixing.mix(
            images,
            labels,
            tf.stack([tf.fill([6], index), tf.range(6, dtype=tf.int64)], axis=1),
            mixup_alpha=0.5,
            cutmix_alpha=1.0,
            num_classes=CLASSES,
        )

    results = list(tf.data.Dataset.range(5).map(mix, num_parallel_calls=2))
    assert results[0][0].shape == images.shape
    for index, (mixed, shares) in enumerate(results):
        again = mix(tf.constant(index, tf.int64))
        np.testing.assert_array_equal(mixed, again[0])
        np.testing.assert_allclose(shares, again[1], atol=1e-6)
    assert len({mixed.numpy().tobytes() for mixed, _ in results}) == 5


def test_mix_gives_every_other_pair_to_mixup_and_the_rest_to_cutmix():
    images, labels = batch(8)
    options = {"mixup_alpha": 1.0, "cutmix_alpha": 1.0, "num_classes": CLASSES}
    mixed, shares = mixing.mix(images, labels, seeds(8), **options)
    for kind, rows in ((mixing.mixup, [0, 1, 4, 5]), (mixing.cutmix, [2, 3, 6, 7])):
        wanted = kind(images, labels, seeds(8), alpha=1.0, num_classes=CLASSES)
        np.testing.assert_array_equal(mixed.numpy()[rows], wanted[0].numpy()[rows])
        np.testing.assert_array_equal(shares.numpy()[rows], wanted[1].numpy()[rows])


def test_parts_of_a_batch_mix_to_parts_of_the_mixed_batch():
    images, labels = batch(8)
    options = {"mixup_alpha": 1.0, "cutmix_alpha": 1.0, "num_classes": CLASSES}
    whole = mixing.mix(images, labels, seeds(8), **options)
    for part in (slice(0, 4), slice(4, 8)):
        mixed = mixing.mix(images[part], labels[part], seeds(8)[part], **options)
        for one, other in zip(mixed, whole, strict=True):
            np.testing.assert_array_equal(one, other[part])


def test_mix_of_one_kind_is_that_kind_and_of_none_is_the_batch_with_one_hot_labels():
    images, labels = batch()
    for kind in ("mixup", "cutmix"):
        mixed = mixing.mix(images, labels, seeds(), num_classes=CLASSES, **{f"{kind}_alpha": 1.0})
        alone = getattr(mixing, kind)(images, labels, seeds(), alpha=1.0, num_classes=CLASSES)
        np.testing.assert_array_equal(mixed[0], alone[0])
    mixed, shares = mixing.mix(images, labels, seeds(), num_classes=CLASSES)
    np.testing.assert_array_equal(mixed, images)
    np.testing.assert_array_equal(shares, tf.one_hot(labels, CLASSES))


@pytest.mark.parametrize("mix", [mixing.mixup, mixing.cutmix])
def test_an_alpha_of_zero_is_refused(mix):
    with pytest.raises(ValueError, match="alpha is 0, expected more than 0"):
        mix(*batch(), seeds(), alpha=0.0, num_classes=CLASSES)


def test_random_erasing_erases_as_often_as_asked_one_rectangle_of_the_asked_size():
    picture = tf.zeros([40, 30, 3], tf.uint8)
    dataset = tf.data.Dataset.range(600).map(
        lambda index: mixing.random_erasing(picture, tf.stack([9, index]), probability=0.25)
    )
    results = np.stack(list(dataset))
    erased = [result for result in results if result.any()]
    assert abs(len(erased) - 150) < 5 * np.sqrt(150)
    shares = []
    for result in erased:
        changed = result.any(axis=-1)  # noise is black once in 2^24 pixels
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        assert changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        shares.append(changed.mean())
    assert 0.01 < min(shares) < 0.05
    assert 0.25 < max(shares) < 0.36
    noise = np.concatenate([result[result.any(axis=-1)].ravel() for result in erased])
    assert abs(noise.mean() - 127.5) < 1


def test_random_erasing_follows_from_the_seed_and_never_or_always_erases_when_told():
    picture = batch(1)[0][0]
    np.testing.assert_array_equal(mixing.random_erasing(picture, seed(), probability=0.0), picture)
    once, twice, other = (
        mixing.random_erasing(picture, seed(index), probability=1.0).numpy() for index in (1, 1, 2)
    )
    assert (once != picture.numpy()).any()
    np.testing.assert_array_equal(once, twice)
    assert (once != other).any()
