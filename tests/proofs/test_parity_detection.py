"""EfficientDet is the published code's: every row of the proofs is within its bound."""

import pytest

from proofs import (
    parity_boxes,
    parity_detection,
    parity_detection_steps,
    parity_suppression,
)

pytestmark = pytest.mark.slow

ROWS = {
    parity_boxes.anchor_rows: 11,
    parity_boxes.assignment_rows: 3,
    parity_boxes.loss_rows: 36,
    parity_boxes.score_rows: 4,
    parity_suppression.suppression_rows: 25,
    parity_suppression.suppression_of_six_rows: 6,
    parity_suppression.answer_rows: 2,
    parity_detection.schedule_rows: 9,
    parity_detection.network_rows: 12,
    parity_detection.input_rows: 18,
    parity_detection_steps.training_rows: 15,
}
LEFT_OUT = (
    r"det_(model|train)_\w+/(batch|config|shapes)",  # settings
    r"det_(nms|targets)/(image_size_h_w|num_classes|image_ids)",
    "det_losses/detection/image_size",
    "det_model_tiny/(segmentation|all_parameters|trainable_parameters)",  # a head that is not here
    "det_nms/(combined|numpy_[a-z]+)/.*",  # suppressions that are not here
    # A crop is cut before it is resized here: its window is another by a pixel, as the boxes' rows say.
    "det_input/train_scale_[.0-9]+/(output|crop_offset_y_x|scale_to_original|scaled_h_w)",
    "det_losses/iou/ciou/gradient_in_graph",  # not the gradient of the formula
    # The norm before clipping and what three steps change are compared.
    "det_train_tiny/(first_gradient_names|first_gradient_norms|gradient_norm)",
    "det_train_tiny/(initial_norm|trainable)",  # of weights that are drawn here too
)


@pytest.mark.parametrize("section", ROWS, ids=lambda section: section.__name__)
def test_every_row_is_within_its_bound(section, reads):
    reads.check_section(section, ROWS[section])


def test_every_section_is_held():
    assert set(ROWS) == {
        *parity_boxes.SECTIONS,
        *parity_suppression.SECTIONS,
        *parity_detection.SECTIONS,
        *parity_detection_steps.SECTIONS,
    }


def test_every_golden_array_has_a_row_or_a_reason(reads):
    reads.check_arrays("det_*.npz", ROWS, LEFT_OUT)
