"""The examples in the docstrings of the Python API give what they say."""

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import efficientnet

MODULES = sorted(
    {"efficientnet"}
    | {m.name for m in pkgutil.walk_packages(efficientnet.__path__, "efficientnet.")}
)
FINDER = doctest.DocTestFinder(exclude_empty=True)


def examples(module: str) -> list[doctest.DocTest]:
    found = FINDER.find(importlib.import_module(module), module)
    return [test for test in found if test.examples]


TESTS = [test for module in MODULES for test in examples(module)]


@pytest.mark.parametrize(
    "test",
    [
        pytest.param(
            test, id=test.name, marks=[pytest.mark.slow] if "build_" in test.docstring else []
        )
        for test in TESTS
    ],
)
def test_examples_give_what_they_say(
    test: doctest.DocTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    output: list[str] = []
    failed, tried = doctest.DocTestRunner(verbose=False).run(test, out=output.append)
    assert tried
    assert not failed, "".join(output)


def test_the_examples_cover_what_a_program_begins_with() -> None:
    names = {test.name for test in TESTS}
    expected = {"efficientnet", "efficientnet.weights", "efficientnet.detection"}
    functions = ("catalog.get_spec", "builder.endpoints", "complexity.complexity")
    assert expected | {f"efficientnet.{name}" for name in functions} <= names
