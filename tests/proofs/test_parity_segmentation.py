"""The U-Net, its losses and its score are those of segmentation_models."""

import pytest

from proofs import parity_segmentation
from tests.parity import check_section

ROWS = {
    parity_segmentation.network_rows: 5,
    parity_segmentation.loss_rows: 16,
    parity_segmentation.score_rows: 4,
}


@pytest.mark.parametrize("section", ROWS, ids=lambda section: section.__name__)
def test_every_row_is_within_its_bound(section, goldens):
    check_section(section, goldens, num_rows=ROWS[section])


def test_every_section_is_held():
    assert set(ROWS) == set(parity_segmentation.SECTIONS)
