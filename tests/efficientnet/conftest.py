"""A network with a life behind it, so that its logits depend on its images."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest


@pytest.fixture(scope="session")
def settle() -> Callable[..., None]:
    """Function that draws batch norm and biases at random and fits the statistics to images.

    With the initial statistics a deep network's logits hardly change with the image (1e-4 for b0),
    and a comparison would not test its convolutions.
    """

    def settled(model: keras.Model, images: Any) -> None:
        random = np.random.default_rng(1)
        for variable in model.weights:
            if variable.name == "gamma":
                variable.assign(random.uniform(0.7, 1.3, variable.shape))
            elif variable.name in ("beta", "bias"):
                variable.assign(random.normal(0.0, 0.1, variable.shape))
        norms = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
        momentum = {norm.name: norm.momentum for norm in norms}
        for norm in norms:
            norm.momentum = 0.1  # not 0: a filter that is nearly constant would be blown up
        model(images, training=True)
        for norm in norms:
            norm.momentum = momentum[norm.name]

    return settled
