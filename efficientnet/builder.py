"""Build a keras.Model from a ModelSpec and find its endpoints by name."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras

from efficientnet.blocks import IMAGES, Node
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

    return build_network(
        network_layers(spec, num_classes=num_classes, include=include),
        name=spec.name,
        image_size=image_size,
        dtype=dtype,
        batch_norm=batch_norm,
        uniform=uniform,
    )


def build_network(
    nodes: Sequence[Node],
    *,
    name: str,
    outputs: Mapping[str, str] | None = None,
    image_size: Size | None = None,
    dtype: str = "float32",
    batch_norm: BatchNormFactory = keras.layers.BatchNormalization,
    uniform: UniformNoise | None = None,
) -> keras.Model:
    """Build a network from the list of its layers, with newly initialised weights.

    Args:
      nodes: in the order in which they are built.
      name: of the model.
      outputs: the tensor of each output by the output's name; None: the last layer's alone.
      image_size, dtype, batch_norm, uniform: as in `build_model`.

    Returns:
      A model from normalised float images [batch, H, W, 3] to the output, or to outputs by name.
    """
    images = images_input(image_size, dtype)
    tensors = connect(nodes, images, BuildOptions(dtype, batch_norm, uniform))
    if outputs is None:
        return keras.Model(images, tensors[nodes[-1].output], name=name)
    found = {key: tensors[tensor] for key, tensor in outputs.items()}
    return keras.Model(images, found, name=name)


def images_input(image_size: Size | None, dtype: str) -> Any:
    """Return the input of a network; see `build_model`."""
    height, width = (None, None) if image_size is None else height_width(image_size)
    compute_dtype = keras.DTypePolicy(dtype).compute_dtype
    return keras.Input((height, width, IMAGE_CHANNELS), name=IMAGES, dtype=compute_dtype)


def connect(nodes: Iterable[Node], images: Any, options: BuildOptions) -> dict[str, Any]:
    """Create the Keras layers of `nodes` and call them, each layer once for each of its nodes.

    Args:
      nodes: in the order in which they are built.
      images: the tensor named `IMAGES`.
      options: of all layers.

    Returns:
      Every tensor by its name.
    """
    tensors, made = {IMAGES: images}, dict[str, keras.Layer]()
    for layer, inputs, output in nodes:
        if layer.name not in made:
            made[layer.name] = layer.make(options)
        x, *others = (tensors[name] for name in inputs)
        tensors[output] = made[layer.name]([x, *others] if others else x)
    return tensors


def endpoints(model: keras.Model) -> dict[str, Any]:
    """Return the named intermediate tensors of a model from `build_model`, in order.

        >>> model = build_model("efficientnet-b0", include="features", image_size=64)
        >>> tuple(endpoints(model)["reduction_3"].shape)
        (None, 8, 8, 40)

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
