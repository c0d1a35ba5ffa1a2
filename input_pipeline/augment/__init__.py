"""Training-time augmentation on uint8 images: policies, their operations, and mixing of batches."""

from input_pipeline.augment.policies import (
    POLICIES,
    AutoAugment,
    NoAugment,
    RandAugment,
    get_augment,
)

__all__ = ["POLICIES", "AutoAugment", "NoAugment", "RandAugment", "get_augment"]
