"""A class for each pixel: losses, score and answers."""

from tasks.segmentation.task import Segmentation

__all__ = ["Segmentation"]
