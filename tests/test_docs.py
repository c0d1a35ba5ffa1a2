"""The pages under docs/ match the code."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import yaml

import main
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


def _nav(entries: list) -> Iterator[str]:
    """Yield the pages of a nav of mkdocs.yml."""
    for entry in entries:
        if isinstance(entry, str):
            yield entry
        else:
            for inside in entry.values():
                yield from _nav(inside if isinstance(inside, list) else [inside])


def test_every_page_is_in_the_site_and_nothing_else() -> None:
    nav = list(_nav(yaml.safe_load((DOCS.parent / "mkdocs.yml").read_text())["nav"]))
    assert len(nav) == len(set(nav))
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert pages <= set(nav)
    for page in set(nav) - pages:
        assert (DOCS.parent / page).is_file(), page


@pytest.mark.parametrize(
    "page",
    [*DOCS.rglob("*.md"), *DOCS.parent.glob("*.md")],
    ids=lambda page: page.relative_to(DOCS.parent).as_posix(),
)
def test_links_lead_to_files_of_the_repository(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#\s\"]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize(
    "page",
    [*DOCS.rglob("*.md"), DOCS.parent / "README.md", DOCS.parent / "CONTRIBUTING.md"],
    ids=lambda page: page.relative_to(DOCS.parent).as_posix(),
)
def test_commands_on_a_page_exist(page: Path) -> None:
    text = page.read_text()
    for module in re.findall(r"python3? -m ([a-z_]+\.[a-z_.]*[a-z_])", text):
        path = DOCS.parent / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module
    for config in re.findall(r"(?<![\w/])configs/[a-z0-9_]+\.yaml", text):
        assert (DOCS.parent / config).is_file(), config
    for mode in re.findall(r"--mode=([a-z_]+)", text):
        assert mode in {*main.MODES, "spot", "on_demand"}, mode  # the last two: of tpu_scripts
