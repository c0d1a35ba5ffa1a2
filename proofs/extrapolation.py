"""Extrapolate the compiler's figures from a part of a network's blocks to all of them.

A deep network takes hours to compile, and most of its blocks are repeats. Of each stage the first ones are
compiled. FLOPs grow to the whole network as its multiply-adds do, traffic and temporaries as the bytes of its
activations, and arguments as its state: the optimizer's traffic, which does not grow like that, is small at
the batches that are compiled.
"""

import dataclasses

from efficientnet import ModelSpec, Size, complexity
from efficientnet.complexity import Complexity


def first_repeats(spec: ModelSpec, divisor: int) -> ModelSpec:
    """Return the network with the first 1/`divisor` of each stage's blocks, rounded up."""
    kept = [block for stage in spec.stages for block in stage[: -(-len(stage) // divisor)]]
    blocks = (dataclasses.replace(block, index=index) for index, block in enumerate(kept))
    return dataclasses.replace(spec, blocks=tuple(blocks))


def factors(
    part: ModelSpec, whole: ModelSpec, *, num_classes: int, image_size: Size
) -> dict[str, float]:
    """Return what the figures of `part` are multiplied by, by their names in a record."""
    ours, all_of = (
        complexity(spec, num_classes=num_classes, image_size=image_size) for spec in (part, whole)
    )
    activations = all_of.activation_bytes() / ours.activation_bytes()
    # Weights and their average, and two slots of what is trained.
    state = _state(all_of) / _state(ours)
    return {
        "flops": all_of.multiply_adds / ours.multiply_adds,
        "bytes_accessed": activations,
        "temporary_bytes": activations,
        "argument_bytes": state,
        "output_bytes": state,
    }


def _state(costs: Complexity) -> int:
    return costs.all_parameters + costs.trainable_parameters
