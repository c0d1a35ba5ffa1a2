"""Data sheets of TPU chips, and the roofline of a compiled step on them."""

import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from system.errors import UsageError

COMPILE_REPORT = Path(__file__).with_name("tpu_compile.json")  # records of proofs.tpu_compile


@dataclasses.dataclass(frozen=True)
class Chip:
    """The data sheet of a chip.

    Attributes:
      name: generation, as in a topology: v5e.
      peak_flops: bfloat16 operations per second.
      hbm_bytes: memory of the chip.
      hbm_bytes_per_second: memory bandwidth.
      replicas: TensorFlow replicas on a chip: one per core up to v3, one per chip from v4 on.
      chips_per_host: chips of a host in a slice of several hosts.
      accelerator: gcloud's name of a slice of this generation; {} is replaced by its size.
      counts_cores: whether that size counts TensorCores, two a chip, instead of chips.
      source: page of the data sheet.
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
        """Return gcloud's name of a slice of so many chips: v5litepod-8, v4-16."""
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
    """Chips of one kind in a grid of `shape`: v5e:2x2, v4:2x2x1."""

    chip: Chip
    shape: tuple[int, ...]

    @property
    def chips(self) -> int:
        """Number of chips."""
        return math.prod(self.shape)

    @property
    def replicas(self) -> int:
        """Number of replicas."""
        return self.chips * self.chip.replicas

    def __str__(self) -> str:
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"


IMAGENET_TRAIN_EXAMPLES = 1_281_167


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Upper bound of the speed of a compiled step.

    Attributes:
      hbm_bytes: bytes of arguments and temporaries in a replica's part of the chip's memory.
      flops_per_image: FLOPs, by the compiler's cost model.
      bytes_per_image: bytes read and written in the chip's memory, by the same model.
      step_seconds: the larger of FLOPs over peak and bytes over bandwidth.
      images_per_second: images per second of one chip at this step time.
    """

    hbm_bytes: float
    flops_per_image: float
    bytes_per_image: float
    step_seconds: float
    images_per_second: float

    def hours(self, epochs: float, chips: int, examples: int = IMAGENET_TRAIN_EXAMPLES) -> float:
        """Return the hours of training on so many chips."""
        return epochs * examples / (self.images_per_second * chips) / 3600


def roofline(record: Mapping[str, Any], topology: Topology) -> Roofline:
    """Compute the roofline from a record of `proofs.tpu_compile`."""
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
    """Parse `v5e:2x2`, or `v4:2x2x1` for chips with a three-dimensional grid (`v4:2x2` for short).

    Raises:
      UsageError: unknown chip, or not a topology.
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
