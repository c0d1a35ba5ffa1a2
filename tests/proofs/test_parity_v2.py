"""EfficientNetV2 is the published code's: every row of the proof is within its bound."""

import pytest

from proofs import parity_v2

ROWS = {
    parity_v2.inference_rows: 6,
    parity_v2.schedule_rows: 3,
    parity_v2.training_rows: 10,
    parity_v2.augmentation_rows: 12,
    parity_v2.mixing_rows: 6,
    parity_v2.preprocessing_rows: 5,
}


@pytest.mark.slow
@pytest.mark.parametrize("section", ROWS, ids=lambda section: section.__name__)
def test_every_row_is_within_its_bound(section, reads):
    reads.check_section(section, ROWS[section])


def test_every_section_is_held():
    assert set(ROWS) == set(parity_v2.SECTIONS)
