"""The U-Net, its losses and its score are those of segmentation_models."""

import pytest

from proofs import parity_segmentation

ROWS = {
    parity_segmentation.network_rows: 5,
    parity_segmentation.loss_rows: 16,
    parity_segmentation.score_rows: 4,
}
LEFT_OUT = (
    "seg_losses/binary/.*",  # losses of one sigmoid output: this project has a class for each
    "seg_losses/softmax/dice_beta2/.*",  # dice has no beta here
    "seg_losses/score/.*",  # scores of a threshold
    "seg_unet_tiny/(batch_norm|shapes)",  # settings
)


@pytest.mark.parametrize("section", ROWS, ids=lambda section: section.__name__)
def test_every_row_is_within_its_bound(section, reads):
    reads.check_section(section, ROWS[section])


def test_every_section_is_held():
    assert set(ROWS) == set(parity_segmentation.SECTIONS)


def test_every_golden_array_has_a_row_or_a_reason(reads):
    reads.check_arrays("seg_*.npz", ROWS, LEFT_OUT)
