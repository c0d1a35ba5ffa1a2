"""Select the variables that a run trains and their shares of the learning rate, by path."""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras

from efficientnet import ModelSpec
from efficientnet.complexity import Complexity
from efficientnet.network import is_backbone
from system.errors import UsageError

BATCH_NORM = r".*/(gamma|beta|moving_mean|moving_variance)$"
FORMS = "'all', 'head', 'stages>=N', 'blocks>=N' or regular expressions of paths such as 'block_6_'"

_BLOCK = re.compile(r"block_(\d+)_")


class Paths(NamedTuple):
    """The paths of a network's variables."""

    weights: tuple[str, ...]
    statistics: tuple[str, ...]

    @classmethod
    def of(cls, network: keras.Model) -> "Paths":
        """Return the paths of a network from `efficientnet.build_model`, which names its layers."""
        weights, statistics = network.trainable_variables, network.non_trainable_variables
        return cls(tuple(v.path for v in weights), tuple(v.path for v in statistics))

    @classmethod
    def of_costs(cls, costs: Complexity) -> "Paths":
        """Return the paths of a network that was not built."""
        return cls(
            tuple(f"{layer.name}/{each}" for layer in costs.layers for each in layer.weights),
            tuple(f"{layer.name}/{each}" for layer in costs.layers for each in layer.statistics),
        )


def frozen_paths(
    paths: Paths, spec: ModelSpec, rule: str | Sequence[str], *, freeze_batch_norm: bool
) -> frozenset[str]:
    """Return the paths of the weights and statistics that `train.trainable` freezes.

    A batch norm whose weights are frozen keeps its statistics too.

    Args:
      paths: paths of the network.
      spec: its specification.
      rule: "all"; "head": all but the backbone; "stages>=N" or "blocks>=N": from stage or block N, counted
        from 0, to the end; or patterns, each matched from the beginning of a path.
      freeze_batch_norm: whether to freeze every batch norm, regardless of the rule.

    Raises:
      UsageError: the rule has another form, begins after the last block, or matches no variable.
    """
    trains = _matcher(rule, spec)
    trained = [path for path in paths.weights if trains(path)]
    if not trained:
        raise UsageError(
            f"train.trainable={rule}: no variable of {spec.name} matches; expected {FORMS}"
        )
    if freeze_batch_norm:
        trained = [path for path in trained if not re.match(BATCH_NORM, path)]
    layers = {path.rpartition("/")[0] for path in trained}
    moving = [path for path in paths.statistics if path.rpartition("/")[0] in layers]
    return frozenset(paths.weights + paths.statistics) - frozenset(trained + moving)


def rate_multipliers(network: keras.Model, spec: ModelSpec, layer_decay: float) -> dict[str, float]:
    """Return shares of the learning rate by path: `layer_decay` to the power of the stages above a variable.

    What is not the backbone, such as the classifier, has the whole rate, the head `layer_decay` of it, the
    last stage its square, and so on down to the stem. Empty when `layer_decay` is 1.
    """
    if layer_decay == 1.0:
        return {}

    def above(path: str) -> int:
        if not is_backbone(path):
            return 0
        if block := _BLOCK.match(path):
            return 1 + len(spec.stages) - spec.blocks[int(block[1])].stage
        return len(spec.stages) + 2 if path.startswith("stem_") else 1

    return {v.path: layer_decay ** above(v.path) for v in network.trainable_variables}


def _matcher(rule: str | Sequence[str], spec: ModelSpec) -> Callable[[str], bool]:
    if rule == "all":
        return lambda path: True
    if rule == "head":
        return lambda path: not is_backbone(path)
    if isinstance(rule, str) and (first := re.fullmatch(r"(stage|block)s>=(\d+)", rule)):
        lowest = int(first[2])
        places = [block.stage if first[1] == "stage" else block.index for block in spec.blocks]
        if lowest > (last := max(places)):
            raise UsageError(
                f"train.trainable={rule}: the last {first[1]} of {spec.name} is {last}; expected at most"
                f" {first[1]}s>={last}, or 'head' to train what follows the backbone alone"
            )
        return lambda path: (
            places[int(block[1])] >= lowest
            if (block := _BLOCK.match(path))
            else not path.startswith("stem_")
        )
    patterns = [rule] if isinstance(rule, str) else rule
    try:
        compiled = [re.compile(pattern) for pattern in patterns]
    except re.error as error:
        raise UsageError(f"train.trainable={rule}: {error}; expected {FORMS}") from error
    return lambda path: any(pattern.match(path) for pattern in compiled)
