"""Read weights: published TensorFlow 1 checkpoints, keras.applications, and this project's files.

    from efficientnet.weights import load_weights
    print(load_weights(model, "efficientnet-b0.weights.h5"))

Readers of other layouts are in `tf1` (which needs TensorFlow) and `keras_applications`; the command
`python -m efficientnet.weights.convert` converts both to this project's files.
"""

from efficientnet.weights.initialize import LoadReport, load_weights
from efficientnet.weights.keras_file import read_weights_file, write_weights_file
from efficientnet.weights.matching import Weights, WeightsError

__all__ = [
    "LoadReport",
    "Weights",
    "WeightsError",
    "load_weights",
    "read_weights_file",
    "write_weights_file",
]
