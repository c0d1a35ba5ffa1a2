"""The published detectors, one row each."""

import difflib
from dataclasses import dataclass, field
from typing import Literal, get_args

from efficientnet.detection.anchors import Anchors
from efficientnet.spec import SpecError

Fusion = Literal["fast", "sum"]


@dataclass(frozen=True, kw_only=True)
class DetectorSpec:
    """A detector, without the settings of its backbone.

    Attributes:
      name: published name.
      backbone: name of the published backbone; any other EfficientNet can replace it.
      resolution: side of the published input, in pixels.
      filters: of every level of the BiFPN and of both heads.
      cells: number of BiFPN cells.
      head_repeats: convolutions of each head before its predictor.
      fusion: how the BiFPN adds its inputs: "fast" with learned weights, "sum" without.
      survival_probability: of the published backbone's last block in training; 1 is no stochastic depth.
      anchors: shapes of the anchors, and the number of levels.
    """

    name: str
    backbone: str
    resolution: int
    filters: int
    cells: int
    head_repeats: int
    fusion: Fusion = "fast"
    survival_probability: float = 0.8
    anchors: Anchors = field(default_factory=Anchors)

    def __post_init__(self) -> None:
        for key, least in (("filters", 1), ("cells", 1), ("head_repeats", 0)):
            if getattr(self, key) < least:
                raise SpecError(
                    f"{self.name}: {key} is {getattr(self, key)}, expected {least} or more"
                )
        if self.fusion not in get_args(Fusion):
            raise SpecError(f"{self.name}: fusion is {self.fusion!r}, expected fast or sum")


def _row(
    name: str,
    backbone: str,
    sizes: tuple[int, int, int, int],
    *,
    fusion: Fusion = "fast",
    max_level: int = 7,
    scale: float = 4.0,
) -> DetectorSpec:
    resolution, filters, cells, head_repeats = sizes
    return DetectorSpec(
        name=f"efficientdet-{name}",
        backbone=f"efficientnet-{backbone}",
        resolution=resolution,
        filters=filters,
        cells=cells,
        head_repeats=head_repeats,
        fusion=fusion,
        # The published code turns stochastic depth off where the backbone's name contains "b0".
        survival_probability=1.0 if backbone == "b0" else 0.8,
        anchors=Anchors(max_level, scale),
    )


# name, backbone, (input, filters, cells, head repeats), as trained; the paper's formulas differ.
DETECTORS = {
    row.name: row
    for row in (
        _row("d0", "b0", (512, 64, 3, 3)),
        _row("d1", "b1", (640, 88, 4, 3)),
        _row("d2", "b2", (768, 112, 5, 3)),
        _row("d3", "b3", (896, 160, 6, 4)),
        _row("d4", "b4", (1024, 224, 7, 4)),
        _row("d5", "b5", (1280, 288, 7, 4)),
        _row("d6", "b6", (1280, 384, 8, 5), fusion="sum"),
        _row("d7", "b6", (1536, 384, 8, 5), fusion="sum", scale=5.0),
        _row("d7x", "b7", (1536, 384, 8, 5), fusion="sum", max_level=8),
        _row("lite0", "lite0", (320, 64, 3, 3), fusion="sum", scale=3.0),
        _row("lite1", "lite1", (384, 88, 4, 3), fusion="sum", scale=3.0),
        _row("lite2", "lite2", (448, 112, 5, 3), fusion="sum", scale=3.0),
        _row("lite3", "lite3", (512, 160, 6, 4), fusion="sum"),
        _row("lite3x", "lite3", (640, 200, 6, 4), fusion="sum", scale=3.0),
        _row("lite4", "lite4", (640, 224, 7, 4), fusion="sum"),
    )
}


def list_detectors() -> list[str]:
    """List the names of the published detectors."""
    return list(DETECTORS)


def get_detector(name: str) -> DetectorSpec:
    """Look up a published detector.

    Raises:
      SpecError: the name is unknown; the message lists similar ones, or else all.
    """
    if name not in DETECTORS:
        near = difflib.get_close_matches(name, DETECTORS, n=4)
        known = f"expected one of {', '.join(DETECTORS)}"
        hint = f"did you mean {', '.join(near)}?" if near else known
        raise SpecError(f"unknown detector {name!r}: {hint}")
    return DETECTORS[name]
