"""ModelSpec -> keras.Model: stem, blocks, head, classifier, with endpoints by name."""

from typing import Any

import keras

from efficientnet.blocks import BLOCKS, Style, conv
from efficientnet.catalog import get_spec
from efficientnet.layers import BatchNormFactory, Dropout, UniformNoise, dense_initializer
from efficientnet.spec import Include, ModelSpec


def build_model(
    name_or_spec: str | ModelSpec,
    *,
    num_classes: int | None = 1000,
    image_size: int | None = None,
    dtype: str = "float32",
    batch_norm: BatchNormFactory = keras.layers.BatchNormalization,
    uniform: UniformNoise | None = None,
    include: Include = "logits",
) -> keras.Model:
    """Builds a network with fresh weights.

    Layers have explicit names, so variable.path (`block_3_expand_bn/gamma`) is the same at every
    build.

    Args:
      name_or_spec: a published name, or a specification from `get_spec` or of your own.
      num_classes: units of the classifier; None leaves it out.
      image_size: side of square images in pixels; None takes any height and width.
      dtype: Keras dtype policy: "float32", "mixed_bfloat16" or "mixed_float16".
      batch_norm: makes batch norm layers; see `BatchNormFactory`.
      uniform: source of noise for dropout and stochastic depth; see `UniformNoise`. None gives
        each such layer a seed generator of Keras.
      include: where the network ends: "logits"; "pooled" features, [batch, head filters]; or the
        "features" of the last block, [batch, H/32, W/32, C], without the head.

    Returns:
      A model from normalised float images [batch, H, W, 3] (see `normalize_images`) to float32
      logits [batch, num_classes], or to what `include` says in the policy's compute type.

    Raises:
      UnknownModelError: for a name that isn't listed.
      ValueError: for an unknown `include` or a number of classes below 1.
    """
    spec = get_spec(name_or_spec) if isinstance(name_or_spec, str) else name_or_spec
    if include not in ("logits", "pooled", "features"):
        raise ValueError(f"include is {include!r}, expected 'logits', 'pooled' or 'features'")
    if num_classes is not None and num_classes < 1:
        raise ValueError(f"num_classes is {num_classes}, expected 1 or more, or None")

    style = Style(spec, dtype, batch_norm, uniform)
    images = keras.Input((image_size, image_size, 3), name="images", dtype=_compute_dtype(dtype))
    x = _stem(images, style)
    x = _blocks(x, style)
    if include != "features":
        x = _head(x, style)
        if include == "logits" and num_classes is not None:
            x = _classifier(x, num_classes, style)
    return keras.Model(images, x, name=spec.name)


def endpoints(model: keras.Model) -> dict[str, Any]:
    """Tensors worth having inside a model of `build_model`, in order.

    `keras.Model(model.input, endpoints(model))` computes them all.

    Args:
      model: built by `build_model`, in any form.

    Returns:
      reduction_1 .. reduction_5: output of the last block at strides 2, 4, 8, 16, 32;
      features: the last feature map: after the head, or of the last block where there is no head;
      pooled: [batch, head filters], before dropout, where there is a head;
      logits: [batch, num_classes], where there is a classifier.
    """
    by_name = {layer.name: layer.output for layer in model.layers}
    found = {name: x for name, x in by_name.items() if name.startswith("reduction_")}
    found["features"] = by_name.get("head_activation", list(found.values())[-1])
    for endpoint, layer in (("pooled", "pooled"), ("logits", "classifier")):
        if layer in by_name:
            found[endpoint] = by_name[layer]
    return found


def _compute_dtype(dtype: str) -> str:
    return keras.DTypePolicy(dtype).compute_dtype


def _stem(images: Any, style: Style) -> Any:
    x = conv(images, style.spec.stem_filters, 3, style, "stem_conv", stride=2)
    x = style.normalize(x, "stem_bn")
    return style.activate(x, "stem_activation")


def _blocks(x: Any, style: Style) -> Any:
    for block in style.spec.blocks:
        x = BLOCKS[block.block](x, block, style)
        if block.index in style.spec.reductions:
            stage = style.spec.reductions.index(block.index) + 1
            # Computes nothing; gives the endpoint its name.
            x = keras.layers.Identity(name=f"reduction_{stage}", dtype=style.dtype)(x)
    return x


def _head(x: Any, style: Style) -> Any:
    x = conv(x, style.spec.head_filters, 1, style, "head_conv")
    x = style.normalize(x, "head_bn")
    x = style.activate(x, "head_activation")
    return keras.layers.GlobalAveragePooling2D(name="pooled", dtype=style.dtype)(x)


def _classifier(pooled: Any, num_classes: int, style: Style) -> Any:
    x = pooled
    if style.spec.dropout > 0.0:
        x = Dropout(
            style.spec.dropout,
            index=len(style.spec.blocks),  # the blocks' stochastic depth took those below
            uniform=style.uniform,
            dtype=style.dtype,
            name="dropout",
        )(x)
    # In float32 under every policy: softmax and cross entropy need the digits.
    return keras.layers.Dense(
        num_classes, kernel_initializer=dense_initializer(), dtype="float32", name="classifier"
    )(x)
