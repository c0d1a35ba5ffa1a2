"""AutoAugment and RandAugment: what is drawn, how often, and that nothing else decides."""

import re
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.augment import (
    POLICIES,
    AutoAugment,
    NoAugment,
    RandAugment,
    get_augment,
    operations,
    policies,
)

# The 25 sub-policies as they are published: (operation, probability, level) twice.
PUBLISHED = """
(Equalize,.8,1) (ShearY,.8,4)       (Color,.4,9) (Equalize,.6,3)
(Color,.4,1) (Rotate,.6,8)          (Solarize,.8,3) (Equalize,.4,7)
(Solarize,.4,2) (Solarize,.6,2)     (Color,.2,0) (Equalize,.8,8)
(Equalize,.4,8) (SolarizeAdd,.8,3)  (ShearX,.2,9) (Rotate,.6,8)
(Color,.6,1) (Equalize,1.0,2)       (Invert,.4,9) (Rotate,.6,0)
(Equalize,1.0,9) (ShearY,.6,3)      (Color,.4,7) (Equalize,.6,0)
(Posterize,.4,6) (AutoContrast,.4,7) (Solarize,.6,8) (Color,.6,9)
(Solarize,.2,4) (Rotate,.8,9)       (Rotate,1.0,7) (TranslateY,.8,9)
(ShearX,.0,0) (Solarize,.8,4)       (ShearY,.8,0) (Color,.6,4)
(Color,1.0,0) (Rotate,.6,2)         (Equalize,.8,4) (Equalize,.0,8)
(Equalize,1.0,4) (AutoContrast,.6,2) (ShearY,.4,7) (SolarizeAdd,.6,7)
(Posterize,.8,2) (Solarize,.6,10)   (Solarize,.6,8) (Equalize,.6,1)
(Color,.8,6) (Rotate,.4,5)
"""
RANDAUGMENT = {
    "AutoContrast", "Equalize", "Invert", "Rotate", "Posterize", "Solarize", "SolarizeAdd", "Color",
    "Contrast", "Brightness", "Sharpness", "ShearX", "ShearY", "TranslateX", "TranslateY", "Cutout",
}  # fmt: skip


def image(height=24, width=20, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


@tf.autograph.experimental.do_not_convert  # as in the training input
def augmented(augment, picture, seeds, **options):
    """The picture under each of the seeds, augmented inside tf.data."""
    dataset = tf.data.Dataset.from_tensor_slices(np.array(seeds, np.int64))
    return np.stack(list(dataset.map(lambda seed: augment(picture, seed), **options)))


def seeds(count, first=0):
    return [(first, index) for index in range(count)]


@pytest.fixture
def traced(monkeypatch):
    """Operations that write down their number (from 1) and level in the picture: newest in row 0."""
    names = sorted(RANDAUGMENT)

    def make_operations(**_):
        def mark(number):
            def operation(picture, level, sign, centre):
                figures = [number, level * 10, sign > 0]
                marks = tf.stack([tf.cast(figure, tf.uint8) for figure in figures])
                return tf.concat([marks[tf.newaxis, tf.newaxis], picture[:-1]], axis=0)

            return operation

        return {name: mark(number) for number, name in enumerate(names, 1)}

    monkeypatch.setattr(policies, "make_operations", make_operations)

    def draws(augment, count):
        """[((name, level, sign), ...) in the order of execution] for that many seeds."""
        pictures = augmented(augment, tf.zeros([4, 1, 3], tf.uint8), seeds(count))
        return [
            tuple((names[n - 1], level / 10, sign) for n, level, sign in rows[::-1, 0] if n)
            for rows in pictures
        ]

    return draws


# -- the catalogue --------------------------------------------------------------------------------


def test_the_sub_policies_are_the_published_ones():
    steps = [
        (name, float(probability), int(level))
        for name, probability, level in re.findall(r"\((\w+),([\d.]+),(\d+)\)", PUBLISHED)
    ]
    pairs = tuple(zip(steps[::2], steps[1::2], strict=True))
    assert len(pairs) == 25
    assert pairs == policies.SUB_POLICIES


def test_an_unknown_policy_lists_the_known_ones():
    with pytest.raises(
        ValueError, match="'autoaugmnet'; known: none, cutout, autoaugment, randaugment"
    ):
        get_augment("autoaugmnet")


def test_a_policy_takes_the_options_that_concern_it_and_no_others():
    options = {"layers": 3, "magnitude": 28.0, "magnitude_std": 0.5, "cutout_const": 4.0}
    assert get_augment("none") == NoAugment()
    assert get_augment("autoaugment", quirks=False, cutout_const=4.0) == AutoAugment(False, None, 4)
    assert get_augment("randaugment", **options) == RandAugment(3, 28.0, 0.5, True, None, 4.0)
    for policy in ("none", "autoaugment"):
        with pytest.raises(TypeError, match="layers"):
            get_augment(policy, layers=3)


@pytest.mark.parametrize(
    ("option", "value"), [("layers", 0), ("magnitude", -1.0), ("magnitude_std", -0.1)]
)
def test_an_impossible_randaugment_is_refused_by_name(option, value):
    with pytest.raises(ValueError, match=f"{option} is {value:g}"):
        get_augment("randaugment", **{option: value})


def test_no_augmentation_is_the_image():
    picture = tf.constant(image())
    np.testing.assert_array_equal(get_augment("none")(picture, tf.constant([1, 2])), picture)


# -- what is drawn --------------------------------------------------------------------------------


@pytest.mark.slow
def test_autoaugment_fires_as_often_as_its_probabilities_say(traced):
    count = 4000
    fired = Counter(name for draw in traced(AutoAugment(), count) for name, _, _ in draw)
    expected = Counter()
    for pair in policies.SUB_POLICIES:
        for name, probability, _ in pair:
            expected[name] += probability / 25 * count
    assert set(fired) == {name for name, number in expected.items() if number}
    for name, number in fired.items():
        assert abs(number - expected[name]) < 5 * np.sqrt(expected[name]), name


@pytest.mark.slow
def test_autoaugment_draws_every_sub_policy_in_order_and_at_its_level(traced):
    def step(name, level):
        return name, 0 if name in ("AutoContrast", "Equalize", "Invert") else level

    allowed = set()
    for (first, p_first, l_first), (second, p_second, l_second) in policies.SUB_POLICIES:
        both = (step(first, l_first), step(second, l_second))
        allowed |= {(), both[:1], both[1:], both}
        allowed -= {both[:1], both} if p_first == 0 else set()
        allowed -= {both[1:], both} if p_second == 0 else set()
    draws = Counter(tuple(step[:2] for step in draw) for draw in traced(AutoAugment(), 4000))
    # The two taken away above may be another sub-policy's as well.
    assert set(draws) <= allowed | {
        (step(name, level),) for p in policies.SUB_POLICIES for name, _, level in p
    }
    certain = {(("Rotate", 7), ("TranslateY", 9)), (("Color", 0), ("Rotate", 2))}
    assert certain <= set(draws)
    for place in range(2):  # of the operation in its sub-policy: each has a sign of its own
        signs = Counter(
            draw[place][2]
            for draw in traced(AutoAugment(), 2000)
            if len(draw) == 2 and draw[place][0] in policies.SIGNED
        )
        assert abs(signs[0] - signs[1]) < 5 * np.sqrt(sum(signs.values()))


def test_randaugment_draws_all_sixteen_alike_and_always_fires(traced):
    count = 3000
    draws = traced(RandAugment(layers=2, magnitude=17.0), count)
    assert {len(draw) for draw in draws} == {2}
    for layer in range(2):
        fired = Counter(draw[layer][0] for draw in draws)
        assert set(fired) == RANDAUGMENT
        for name, number in fired.items():
            assert abs(number - count / 16) < 5 * np.sqrt(count / 16), name
    twice = sum(first[0] == second[0] for first, second in draws)
    assert abs(twice - count / 16) < 5 * np.sqrt(count / 16)  # with replacement, independently
    assert {level for draw in draws for _, level, _ in draw} == {17.0}


def test_magnitude_noise_spreads_the_level_and_ends_at_zero(traced):
    draws = traced(RandAugment(layers=1, magnitude=10.0, magnitude_std=2.0), 2000)
    levels = np.array([level for ((_, level, _),) in draws])
    assert abs(levels.mean() - 9.95) < 0.25  # cut to tenths
    assert abs(levels.std() - 2.0) < 0.2
    draws = traced(RandAugment(layers=1, magnitude=0.0, magnitude_std=1.0), 500)
    levels = np.array([level for ((_, level, _),) in draws])
    assert levels.min() == 0.0
    assert 0.4 < (levels == 0).mean() < 0.65


def test_only_the_drawn_operation_is_executed():
    def inverted(picture, number):
        return 255 - picture

    def failing(picture, number):
        return tf.reshape(picture, [tf.size(picture) + number])

    picture = tf.constant(image())

    def apply(index):
        signature = (tf.TensorSpec(picture.shape, tf.uint8), tf.TensorSpec([], tf.int32))
        draw = policies.make_drawer([failing, inverted, failing], *signature)
        return draw(index, picture, tf.constant(1))

    for result in tf.data.Dataset.from_tensor_slices([1, 1]).map(apply):
        np.testing.assert_array_equal(result, 255 - picture)
    np.testing.assert_array_equal(apply(tf.constant(1)), 255 - picture)
    with pytest.raises(tf.errors.InvalidArgumentError):
        list(tf.data.Dataset.from_tensor_slices([1, 2]).map(apply))
    with pytest.raises(tf.errors.InvalidArgumentError):
        apply(tf.constant(2))


# -- pixels ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "augment",
    [
        AutoAugment(translate_const=8.0),
        AutoAugment(quirks=False),
        RandAugment(translate_const=8.0, cutout_const=4.0),
        RandAugment(layers=3, magnitude=12.0, magnitude_std=3.0, quirks=False, cutout_const=4.0),
    ],
    ids=["autoaugment", "autoaugment fixed", "randaugment", "randaugment with noise"],
)
def test_pixels_follow_from_the_seed_alone(augment):
    picture = tf.constant(image())
    drawn = seeds(60)
    in_order = augmented(augment, picture, drawn)
    in_parallel = augmented(augment, picture, drawn[::-1], num_parallel_calls=4)[::-1]
    np.testing.assert_array_equal(in_order, in_parallel)
    eager = [augment(picture, tf.constant(seed, tf.int64)) for seed in drawn]
    np.testing.assert_array_equal(in_order, eager)
    assert len({result.tobytes() for result in in_order}) > 20
    other = augmented(augment, picture, seeds(60, first=1))
    assert (in_order != other).any(axis=(1, 2, 3)).mean() > 0.5


def test_int32_and_int64_seeds_of_one_value_give_the_same_pixels():
    picture = tf.constant(image())
    for index in range(20):
        results = [
            AutoAugment()(picture, tf.constant([3, index], dtype)) for dtype in (tf.int32, tf.int64)
        ]
        np.testing.assert_array_equal(*results)


@pytest.mark.slow
@tf.autograph.experimental.do_not_convert
def test_images_of_unknown_shape_are_augmented():
    shapes = [(24, 20), (9, 31)]
    dataset = tf.data.Dataset.from_generator(
        lambda: (image(*shape) for shape in shapes),
        output_signature=tf.TensorSpec([None, None, 3], tf.uint8),
    )
    for augment in (AutoAugment(), RandAugment()):
        drawn = tf.data.Dataset.range(6).map(lambda index: tf.stack([5, index]))
        results = tf.data.Dataset.zip((dataset.repeat(3), drawn)).map(augment)
        for index, result in enumerate(results):
            eager = augment(tf.constant(image(*shapes[index % 2])), tf.constant([5, index]))
            np.testing.assert_array_equal(result, eager)


@pytest.fixture(params=[True, False], ids=["quirks", "fixed"])
def catalogue(request):
    options = {"quirks": request.param, "translate_const": 250.0, "cutout_const": 100.0}
    if not request.param:
        options["translate_const"] = None
    return request.param, policies.make_operations(**options)


def test_every_operation_gets_its_levels_argument(catalogue):
    quirks, drawn = catalogue
    picture, level, sign, centre = tf.constant(image()), 4.0, -1.0, tf.constant([0.25, 0.75])
    pixels = (100.0, 100.0) if quirks else (4 * 15 / 331 * 24, 4 * 15 / 331 * 20)
    expected = {
        "AutoContrast": operations.autocontrast(picture),
        "Equalize": operations.equalize(picture),
        "Invert": operations.invert(picture),
        "Rotate": operations.rotate(picture, -12.0),
        "Posterize": operations.posterize(picture, 1),
        "Solarize": operations.solarize(picture, 102),
        "SolarizeAdd": operations.solarize_add(picture, 44),
        "Color": operations.color(picture, 0.82),
        "Contrast": operations.contrast(picture, 0.82, quirks=quirks),
        "Brightness": operations.brightness(picture, 0.82),
        "Sharpness": operations.sharpness(picture, 0.82),
        "ShearX": operations.shear_x(picture, -0.12),
        "ShearY": operations.shear_y(picture, -0.12),
        "TranslateX": operations.translate_x(picture, -pixels[1]),
        "TranslateY": operations.translate_y(picture, -pixels[0]),
        "Cutout": operations.cutout(picture, 40, centre),
    }
    assert set(drawn) == set(expected) == RANDAUGMENT
    for name, operation in drawn.items():
        numbers = operation(picture, level, sign, centre)
        np.testing.assert_array_equal(numbers, expected[name], name)
        tensors = operation(picture, tf.constant(level, tf.float64), tf.constant(sign), centre)
        np.testing.assert_array_equal(tensors, expected[name], name)


def test_an_operation_has_a_sign_if_it_is_told_to_have_one():
    drawn = policies.make_operations(quirks=True, translate_const=50.0, cutout_const=4.0)
    picture, centre = tf.constant(image()), tf.constant([0.5, 0.5])
    for name, operation in drawn.items():
        plus, minus = (operation(picture, 3.0, sign, centre) for sign in policies.SIGNS)
        assert (plus.numpy() != minus.numpy()).any() == (name in policies.SIGNED), name


def test_mended_quirks_reach_the_operations():
    picture = tf.constant(image())
    centre = tf.zeros([2])
    for name, level in (("Solarize", 10.0), ("Posterize", 0.0), ("Contrast", 2.0)):
        kept, fixed = (
            policies.make_operations(quirks=quirks, translate_const=None, cutout_const=4.0)[name](
                picture, level, 1.0, centre
            )
            for quirks in (True, False)
        )
        assert (kept.numpy() != fixed.numpy()).any(), name


@pytest.mark.slow
def test_the_published_translation_leaves_a_small_image_grey_and_the_mended_one_does_not():
    """Level 9 of AutoAugment's TranslateY is 225 pixels."""
    picture = tf.constant(image(64, 64))

    def grey(**options):
        results = augmented(get_augment("autoaugment", **options), picture, seeds(250))
        return (results == 128).all(axis=(1, 2, 3)).mean()

    assert 0 < grey() < 0.1  # expected: 0.8 / 25
    assert grey(quirks=False) == 0


def test_policies_are_found_by_name():
    assert list(POLICIES) == ["none", "cutout", "autoaugment", "randaugment"]


# -- cutout ----------------------------------------------------------------------------------------


def test_cutout_puts_a_square_of_bright_noise_into_every_image():
    grey = tf.fill([40, 40, 3], tf.constant(7, tf.uint8))
    policy = get_augment("cutout")
    sizes = set()
    for index in range(20):
        found = policy(grey, tf.constant([3, index], tf.int64)).numpy()
        changed = (found != 7).any(-1)
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        assert changed[np.ix_(rows, columns)].all()  # one rectangle
        assert found[changed].min() >= 127
        sizes.add((len(rows), len(columns)))
    assert max(sizes) == (20, 20)  # half the side
    assert all(10 <= side <= 20 for size in sizes for side in size)  # cut off at the borders
