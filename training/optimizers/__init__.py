"""Optimizers by name, one file each, and the schedules of their learning rate."""

from collections.abc import Callable, Mapping

from training.optimizers.adamw import AdamW
from training.optimizers.lars import LARS
from training.optimizers.optimizer import Optimizer, Slots
from training.optimizers.rmsprop import RMSProp
from training.optimizers.sgd import SGD

OPTIMIZERS: Mapping[str, Callable[..., Optimizer]] = {
    "rmsprop": RMSProp,
    "sgd": SGD,
    "adamw": AdamW,
    "lars": LARS,
}

__all__ = ["LARS", "OPTIMIZERS", "SGD", "AdamW", "Optimizer", "RMSProp", "Slots"]
