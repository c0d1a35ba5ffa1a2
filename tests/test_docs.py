"""The pages under docs/ match the code."""

import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from configs.schema import section_classes
from docs import pictures

DOCS = Path(pictures.__file__).parent


@pytest.mark.parametrize("page", ["data.md", "experiments.md", "segmentation.md"])
def test_every_field_that_a_page_names_is_in_the_schema(page: str) -> None:
    known = {
        f"{name}.{field}"
        for name, classes in section_classes().items()
        for section in classes
        for field in section.model_fields
    }
    names = "|".join({name.partition(".")[0] for name in known})
    named = set(re.findall(rf"`((?:{names})\.[a-z_0-9]+)(?=[`=])", (DOCS / page).read_text()))
    assert named
    assert named <= known


@pytest.mark.parametrize("name", ["operations", "mixing", "augmented"])
def test_the_pictures_show_what_the_pipeline_does(name: str) -> None:
    drawn = getattr(pictures, f"{name}_sheet")()
    kept = tf.io.decode_png((DOCS / "images" / f"{name}.png").read_bytes(), channels=3)
    np.testing.assert_array_equal(kept, drawn)


@pytest.mark.parametrize(
    "page", sorted((DOCS / "decisions").glob("[0-9]*.md")), ids=lambda page: page.stem
)
def test_a_decision_has_its_number_its_status_and_what_it_supersedes(page: Path) -> None:
    title, blank, status, supersedes, *_ = page.read_text().splitlines()
    assert re.match(rf"# {int(page.stem[:4])}\. \S", title)
    assert blank == ""
    assert re.fullmatch(r"- Status: (accepted|rejected|superseded by \d+), \d{4}-\d\d-\d\d", status)
    assert re.fullmatch(r"- Supersedes: (none|\d+(, \d+)*)", supersedes)
