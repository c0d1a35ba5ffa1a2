"""Read weights of this project, of TensorFlow, Keras, timm and efficientnet_pytorch.

    >>> from efficientnet import build_model, get_spec
    >>> from efficientnet.weights import load_weights, write_weights_file
    >>> spec = get_spec("efficientnet-b0", width=0.25, depth=0.1)
    >>> model = build_model(spec, num_classes=7)
    >>> weights = {variable.path: variable.numpy() for variable in model.weights}
    >>> write_weights_file("b0.weights.h5", spec, weights)
    >>> print(load_weights(build_model(spec, num_classes=5), "b0.weights.h5"))
    initialised 138 variables from b0.weights.h5; its classifier of 7 classes was dropped, the model has 5

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
