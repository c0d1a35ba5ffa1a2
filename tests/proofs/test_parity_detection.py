"""EfficientDet is the published code's: every row of the proofs is within its bound."""

import pytest

from proofs import parity_boxes, parity_detection
from tests.parity import check_section

ROWS = {
    parity_boxes.anchor_rows: 11,
    parity_boxes.assignment_rows: 3,
    parity_boxes.loss_rows: 36,
    parity_boxes.suppression_rows: 25,
    parity_boxes.suppression_of_six_rows: 6,
    parity_boxes.answer_rows: 2,
    parity_boxes.score_rows: 4,
    parity_detection.schedule_rows: 9,
    parity_detection.network_rows: 12,
    parity_detection.training_rows: 15,
    parity_detection.input_rows: 18,
}


@pytest.mark.slow
@pytest.mark.parametrize("section", ROWS, ids=lambda section: section.__name__)
def test_every_row_is_within_its_bound(section, goldens):
    check_section(section, goldens, num_rows=ROWS[section])


def test_every_section_is_held():
    assert set(ROWS) == {*parity_boxes.SECTIONS, *parity_detection.SECTIONS}
