"""Switches of a network's layers for one trace of the training step.

A stage of training is another trace of the same network: with other rates of dropout and stochastic depth,
or with batch norms that keep their statistics.
"""

import contextlib
from collections.abc import Iterator, Mapping

import keras

from efficientnet.layers import RandomKeep
from training.step.batch_norm import CrossReplicaBatchNormalization


@contextlib.contextmanager
def switched(
    network: keras.Model,
    frozen: frozenset[str],
    keep_probabilities: Mapping[str, float] | None,
) -> Iterator[None]:
    """Set the layers of `network` while a step is traced within the block.

    Args:
      network: network of the step.
      frozen: paths of variables; batch norms whose statistics are among them normalise by them in
        training too.
      keep_probabilities: of the random layers, by name; a layer that is not named keeps everything. None
        leaves all as they were built.
    """
    norms = [x for x in network.layers if isinstance(x, CrossReplicaBatchNormalization)]
    random = [x for x in network.layers if isinstance(x, RandomKeep)]
    built = [layer.keep_probability for layer in random]
    for norm in norms:
        norm.frozen = norm.moving_mean.path in frozen
    if keep_probabilities is not None:
        for layer in random:
            layer.keep_probability = keep_probabilities.get(layer.name, 1.0)
    try:
        yield
    finally:
        for norm in norms:
            norm.frozen = False
        for layer, probability in zip(random, built, strict=True):
            layer.keep_probability = probability
