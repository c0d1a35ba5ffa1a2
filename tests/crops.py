"""Crops of one encoded image, by the names of the published pipeline."""

import tensorflow as tf

from input_pipeline.images.framing import (
    CenterCrop,
    RandomCrop,
    frame_eval,
    frame_train,
    resized_part,
)


def train_crop(image_bytes, seed, *, image_size, resize="bicubic", flip=True, **crop) -> tf.Tensor:
    """uint8 [H, W, 3]."""
    framing = RandomCrop(**crop)
    return frame_train(image_bytes, seed, framing, image_size, resize=resize, flip=flip).image


def eval_crop(image_bytes, *, image_size, crop_padding=None, resize="bicubic") -> tf.Tensor:
    """float32 [H, W, 3], neither rounded nor clipped."""
    return resized_part(image_bytes, CenterCrop(crop_padding), image_size, resize=resize)[0]


def eval_crop_uint8(image_bytes, *, image_size, crop_padding=None, resize="bicubic") -> tf.Tensor:
    """uint8 [H, W, 3]."""
    return frame_eval(image_bytes, CenterCrop(crop_padding), image_size, resize=resize).image
