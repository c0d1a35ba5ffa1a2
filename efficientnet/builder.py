"""Build a keras.Model from a ModelSpec and find its endpoints by name."""

from typing import Any

import keras

from efficientnet.blocks import IMAGES
from efficientnet.catalog import get_spec
from efficientnet.layer_kinds import BuildOptions
from efficientnet.layers import BatchNormFactory, UniformNoise
from efficientnet.network import network_layers
from efficientnet.spec import IMAGE_CHANNELS, Include, ModelSpec, Size, height_width


def build_model(
    name_or_spec: str | ModelSpec,
    *,
    num_classes: int | None = 1000,
    image_size: Size | None = None,
    dtype: str = "float32",
    batch_norm: BatchNormFactory = keras.layers.BatchNormalization,
    uniform: UniformNoise | None = None,
    include: Include = "logits",
) -> keras.Model:
    """Build a network with newly initialised weights.

    Layers have explicit names, so variable.path (`block_3_expand_bn/gamma`) is the same at every
    build.

    Args:
      name_or_spec: a published name or a specification.
      num_classes: units of the classifier; None omits it.
      image_size: side of square images or (height, width), in pixels; None takes any height and
        width.
      dtype: Keras dtype policy: "float32", "mixed_bfloat16" or "mixed_float16".
      batch_norm: creates batch norm layers; see `BatchNormFactory`.
      uniform: source of noise for dropout and stochastic depth; see `UniformNoise`. None gives
        each such layer its own Keras seed generator.
      include: where the network ends: "logits"; "pooled" features, [batch, head filters]; or the
        "features" of the last block, [batch, H/32, W/32, C], without the head.

    Returns:
      A model from normalised float images [batch, H, W, 3] (see `normalize_images`) to float32
      logits [batch, num_classes], or to the output that `include` selects in the policy's compute type.

    Raises:
      UnknownModelError: the name is not in the catalog.
      SpecError: a block is of an unknown kind.
      ValueError: `include` is unknown, or num_classes is below 1.
    """
    spec = get_spec(name_or_spec) if isinstance(name_or_spec, str) else name_or_spec
    if include not in ("logits", "pooled", "features"):
        raise ValueError(f"include is {include!r}, expected 'logits', 'pooled' or 'features'")
    if num_classes is not None and num_classes < 1:
        raise ValueError(f"num_classes is {num_classes}, expected 1 or more, or None")

    compute_dtype = keras.DTypePolicy(dtype).compute_dtype
    height, width = (None, None) if image_size is None else height_width(image_size)
    images = keras.Input((height, width, IMAGE_CHANNELS), name=IMAGES, dtype=compute_dtype)
    options = BuildOptions(dtype, batch_norm, uniform)
    x, tensors = images, {IMAGES: images}
    for layer, inputs in network_layers(spec, num_classes=num_classes, include=include):
        x, *others = (tensors[name] for name in inputs)
        x = tensors[layer.name] = layer.make(options)([x, *others] if others else x)
    return keras.Model(images, x, name=spec.name)


def endpoints(model: keras.Model) -> dict[str, Any]:
    """Return the named intermediate tensors of a model from `build_model`, in order.

    `keras.Model(model.input, endpoints(model))` computes them all.

    Args:
      model: from `build_model`, with any `include`.

    Returns:
      reduction_1 .. reduction_5: output of the last block at strides 2, 4, 8, 16, 32;
      features: the last feature map: after the head's convolution, or of the last block if there is
        none;
      pooled: [batch, head filters], before dropout, if the model pools;
      logits: [batch, num_classes], if the model has a classifier.
    """
    by_name = {layer.name: layer.output for layer in model.layers}
    found = {name: x for name, x in by_name.items() if name.startswith("reduction_")}
    found["features"] = by_name.get("head_activation", list(found.values())[-1])
    for endpoint, layer in (("pooled", "pooled"), ("logits", "classifier")):
        if layer in by_name:
            found[endpoint] = by_name[layer]
    return found
