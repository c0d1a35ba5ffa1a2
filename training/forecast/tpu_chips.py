"""What TPU chips can do, by their maker's figures, and how fast a compiled step can be on them at best."""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from system.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip as the data sheet has it.

    Attributes:
      name: generation, as in a topology: v5e.
      peak_flops: bfloat16 operations per second.
      hbm_bytes: memory of the chip.
      hbm_bytes_per_second: between the memory and the cores.
      replicas: TensorFlow's replicas on a chip: its cores up to v3, one from v4 on.
      chips_per_host: in a slice of several hosts.
      accelerator: how gcloud names a slice of one generation; {} stands for its size.
      counts_cores: whether that size counts TensorCores, two a chip, instead of chips.
      source: page of these figures.
    """

    name: str
    peak_flops: float
    hbm_bytes: float
    hbm_bytes_per_second: float
    replicas: int
    chips_per_host: int
    accelerator: str
    counts_cores: bool
    source: str

    def slice_name(self, chips: int) -> str:
        """What gcloud calls a slice of so many chips: v5litepod-8, v4-16."""
        return self.accelerator.format(chips * 2 if self.counts_cores else chips)


_PAGE = "https://cloud.google.com/tpu/docs/"
CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v3", 123e12, 32e9, 900e9, 2, 4, "v3-{}", True, _PAGE + "v3"),
        Chip("v4", 275e12, 32e9, 1200e9, 1, 4, "v4-{}", True, _PAGE + "v4"),
        Chip("v5e", 197e12, 16e9, 819e9, 1, 8, "v5litepod-{}", False, _PAGE + "v5e"),
        Chip("v5p", 459e12, 95e9, 2765e9, 1, 4, "v5p-{}", True, _PAGE + "v5p"),
        Chip("v6e", 918e12, 32e9, 1638e9, 1, 8, "v6e-{}", False, _PAGE + "v6e"),
    )
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """Chips of one kind, wired as `shape` says: v5e:2x2, v4:2x2x1."""

    chip: Chip
    shape: tuple[int, ...]

    @property
    def chips(self) -> int:
        """How many."""
        return math.prod(self.shape)

    @property
    def replicas(self) -> int:
        """How many replicas train on it."""
        return self.chips * self.chip.replicas

    def __str__(self) -> str:
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"


IMAGENET_TRAIN_EXAMPLES = 1_281_167


@dataclasses.dataclass(frozen=True)
class Roofline:
    """What a compiled step says about training: no real step is faster.

    Attributes:
      hbm_bytes: arguments and temporaries, in a replica's part of the chip's memory.
      flops_per_image: by the compiler's cost model.
      bytes_per_image: read and written in the chip's memory, by the same.
      step_seconds: the larger of FLOPs over peak and bytes over bandwidth.
      images_per_second: of one chip, at that.
    """

    hbm_bytes: float
    flops_per_image: float
    bytes_per_image: float
    step_seconds: float
    images_per_second: float

    def hours(self, epochs: float, chips: int, examples: int = IMAGENET_TRAIN_EXAMPLES) -> float:
        """Of training on so many chips."""
        return epochs * examples / (self.images_per_second * chips) / 3600


def roofline(record: Mapping[str, Any], topology: Topology) -> Roofline:
    """From a record of `proofs.tpu_compile`: "flops", "bytes_accessed", "per_replica_batch", ..."""
    chip, batch = topology.chip, record["per_replica_batch"]
    seconds = max(
        record["flops"] / (chip.peak_flops / chip.replicas),
        record["bytes_accessed"] / (chip.hbm_bytes_per_second / chip.replicas),
    )
    return Roofline(
        hbm_bytes=record["argument_bytes"] + record["temporary_bytes"],
        flops_per_image=record["flops"] / batch,
        bytes_per_image=record["bytes_accessed"] / batch,
        step_seconds=seconds,
        images_per_second=batch * chip.replicas / seconds,
    )


def parse_topology(text: str) -> Topology:
    """Read `v5e:2x2`; chips with a three-dimensional wiring take `v4:2x2x1`, or `v4:2x2` for it.

    Raises:
      UsageError: no such chip or topology.
    """
    match = re.fullmatch(r"(\w+):([1-9]\d*(?:x[1-9]\d*){1,2})", text)
    if not match or match[1] not in CHIPS:
        raise UsageError(
            f"--topology={text}: expected CHIP:AxB or CHIP:AxBxC, such as v5e:2x2 or v4:2x2x1, "
            f"with a chip of {', '.join(CHIPS)}"
        )
    shape = tuple(map(int, match[2].split("x")))
    if match[1] in ("v4", "v5p") and len(shape) == 2:
        shape += (1,)
    return Topology(CHIPS[match[1]], shape)
