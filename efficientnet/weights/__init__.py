"""Read weights of this project, of TensorFlow, Keras, timm and efficientnet_pytorch.

    from efficientnet.weights import load_weights
    print(load_weights(model, "efficientnet-b0.weights.h5"))

`open.open_weights` reads every format and returns what the weights expect; the command
`python -m efficientnet.weights.convert` converts between formats. Checkpoints need TensorFlow.
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
