"""EfficientNets for Keras 3: specifications, networks and their costs.

    >>> import numpy as np
    >>> import efficientnet
    >>> spec = efficientnet.get_spec("efficientnet-b0")
    >>> model = efficientnet.build_model(spec, num_classes=10)
    >>> pixels = np.zeros([2, 224, 224, 3], "uint8")
    >>> images = efficientnet.normalize_images(pixels, spec.mean_rgb, spec.stddev_rgb)
    >>> tuple(model(images).shape)
    (2, 10)

The package needs Keras and runs on every backend of it.
"""

from system.tensorflow_log import quiet_commands_of

try:
    quiet_commands_of("efficientnet")  # before the backend is imported
    import keras  # noqa: F401
except ModuleNotFoundError as error:
    raise ImportError(
        f"efficientnet needs a backend of Keras, and {error.name} is not installed: "
        "pip install tensorflow, or jax with KERAS_BACKEND=jax"
    ) from error

from efficientnet.builder import build_model, endpoints
from efficientnet.catalog import UnknownModelError, Variation, get_spec, list_models, vary
from efficientnet.complexity import Complexity, complexity
from efficientnet.layer_kinds import LayerCost
from efficientnet.layers import BatchNormFactory, UniformNoise, normalize_images
from efficientnet.plain import from_plain, to_plain
from efficientnet.spec import (
    BlockSpec,
    HeadSpec,
    ModelSpec,
    Size,
    SpecError,
    StageSpec,
    StemSpec,
    describe_size,
    height_width,
)

__version__ = "0.2.0"

__all__ = [
    "BatchNormFactory",
    "BlockSpec",
    "Complexity",
    "HeadSpec",
    "LayerCost",
    "ModelSpec",
    "Size",
    "SpecError",
    "StageSpec",
    "StemSpec",
    "UniformNoise",
    "UnknownModelError",
    "Variation",
    "build_model",
    "complexity",
    "describe_size",
    "endpoints",
    "from_plain",
    "get_spec",
    "height_width",
    "list_models",
    "normalize_images",
    "to_plain",
    "vary",
]
