"""Random experiment files: each gives an Experiment or a one-line error."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs import sections
from configs.load import ConfigError, load_experiment
from configs.schema import Experiment, section_classes
from tests.fuzz import bounded, damaged

ROOT = Path(sections.__file__).parent
FILES = {path.name: path.read_bytes() for path in ROOT.glob("*.yaml")}
KEYS = [
    f"{name}.{field}"
    for name, classes in section_classes().items()
    for section in classes
    for field in section.model_fields
] + ["seed", "name"]

values = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            "null",
            "-1",
            "0",
            "1e999",
            ".nan",
            "[]",
            "{}",
            "[[[[",
            "!!python/object:os.system",
            "*a",
            "&a",
        ]
    ),
    st.integers().map(str),
    st.floats().map(str),
    st.tuples(st.floats(0, 1e15), st.sampled_from(["epochs", "steps", "examples"])).map(
        lambda pair: f"{pair[0]} {pair[1]}"
    ),
)


def load(path: str | None, overrides: tuple[str, ...] = ()) -> None:
    said = "fine"
    try:
        assert isinstance(load_experiment(path, overrides=list(overrides)), Experiment)
    except ConfigError as error:
        said = str(error)
    assert len(said.splitlines()) == 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("experiments")


@bounded(150)
@given(content=damaged(FILES) | st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_fuzz_of_experiment_files(folder: Path, content: bytes) -> None:
    (folder / "fuzz.yaml").write_bytes(content)
    load(str(folder / "fuzz.yaml"))


@bounded(300)
@given(
    overrides=st.lists(
        st.builds("{}={}".format, st.sampled_from(KEYS), values) | st.text(max_size=30), max_size=3
    )
)
def test_fuzz_of_set(overrides: list[str]) -> None:
    load(None, tuple(overrides))


def test_a_kilobyte_does_not_become_gigabytes(folder: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    (folder / "bomb.yaml").write_text("\n".join(lines))
    with pytest.raises(ConfigError, match="aliases"):
        load_experiment(str(folder / "bomb.yaml"))
