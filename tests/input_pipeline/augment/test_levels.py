"""What level L means to each operation, from the published figures."""

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.augment import levels

# Argument at levels 0, 1, 4, 9, 10 and, as RandAugment's published b7 uses it, 28.
LEVELS = [0, 1, 4, 9, 10, 28]
FIGURES = {
    levels.rotate_degrees: [0, 3, 12, 27, 30, 84],
    levels.shear_level: [0, 0.03, 0.12, 0.27, 0.3, 0.84],
    levels.posterize_bits: [0, 0, 1, 3, 4, 11],
    levels.solarize_threshold: [0, 25, 102, 230, 256, 716],
    levels.solarize_addition: [0, 11, 44, 99, 110, 308],
    levels.enhancement_factor: [0.1, 0.28, 0.82, 1.72, 1.9, 5.14],
}


@pytest.mark.parametrize("function", FIGURES)
def test_arguments_are_the_published_ones(function):
    arguments = [function(float(level)) for level in LEVELS]
    assert arguments == pytest.approx(FIGURES[function], abs=1e-9)


@pytest.mark.parametrize(
    ("translate_const", "figures"),
    [(250, [0, 25, 100, 225, 250, 700]), (100, [0, 10, 40, 90, 100, 280])],
)
def test_translation_goes_with_its_constant(translate_const, figures):
    arguments = [levels.translate_pixels(level, translate_const) for level in LEVELS]
    assert arguments == pytest.approx(figures)


def test_cutout_goes_with_its_constant_in_whole_pixels():
    assert [levels.cutout_half_size(level, 40.0) for level in LEVELS] == [0, 4, 16, 36, 40, 112]
    assert levels.cutout_half_size(6.7, 40.0) == 26


@pytest.mark.parametrize("function", FIGURES)
def test_a_tensor_means_what_a_number_means(function):
    for level in [*range(31), 6.7, 8.3, 11.7]:
        number = function(float(level))
        tensor = function(tf.constant(level, tf.float64))
        assert tensor.dtype == (tf.int32 if isinstance(number, int) else tf.float64)
        assert tensor.numpy() == number, level


def test_the_mended_translation_is_the_papers_proportion():
    assert levels.translate_pixels(10, levels.TRANSLATE_SHARE) * 331 == pytest.approx(150)
    # About what RandAugment's 100 pixels are of 224.
    assert np.isclose(levels.TRANSLATE_SHARE, 100 / 224, rtol=0.02)
