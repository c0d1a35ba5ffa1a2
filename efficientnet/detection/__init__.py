"""EfficientDet (arXiv 1911.09070): BiFPN, heads and anchors on the reductions of an EfficientNet.

>>> from efficientnet import get_spec
>>> spec = get_detector("efficientdet-d0")
>>> model = build_detector(spec, get_spec(spec.backbone), num_classes=90, image_size=128)
>>> {name: tuple(output.shape) for name, output in model.output.items()}
{'classes': (None, 3069, 90), 'boxes': (None, 3069, 4)}
>>> anchor_boxes(spec.anchors, 128).shape
(3069, 4)
"""

from efficientnet.detection.anchors import Anchors, anchor_boxes, level_sizes
from efficientnet.detection.catalog import DetectorSpec, get_detector, list_detectors
from efficientnet.detection.network import build_detector, detector_complexity

__all__ = [
    "Anchors",
    "DetectorSpec",
    "anchor_boxes",
    "build_detector",
    "detector_complexity",
    "get_detector",
    "level_sizes",
    "list_detectors",
]
