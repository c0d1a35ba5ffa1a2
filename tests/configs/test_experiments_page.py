import re

import pytest

from configs.document import BEGIN, PAGE, main, tables, with_tables
from configs.load import FOLDER, ConfigError, load_experiment
from configs.schema import KINDS, Experiment, Progressive, StageOverlay, section_classes
from configs.sections import own_fields, shared_class

TEXT = PAGE.read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, flags=re.DOTALL | re.MULTILINE)
    return [block for its_language, block in found if its_language == language]


def test_the_tables_are_in_step_with_the_schema():
    assert with_tables(TEXT) == TEXT, "run `python -m configs.document`"


def test_the_tables_hold_every_field_of_every_kind():
    sections = section_classes()
    keys = [key for key in Experiment.model_fields if key not in sections]
    for name, classes in sections.items():
        if name in KINDS:
            keys += [f"{name}.{key}" for key in shared_class(classes[0]).model_fields]
            keys += [f"{name}.{key}" for kind in classes for key in own_fields(kind)]
        else:
            keys += [f"{name}.{key}" for key in classes[0].model_fields]
    keys += [f"stages.{key}" for key in StageOverlay.model_fields]
    keys += [f"progressive.{key}" for key in Progressive.model_fields]
    written = re.findall(r"^\| `([a-z_0-9.]+)`", tables(), flags=re.MULTILINE)
    assert sorted(written) == sorted(keys)


def test_an_unknown_flag_is_one_line(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--foo"])
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert err == "configs.document: unknown flag --foo; see --help\n"


def test_a_page_without_marks_is_refused():
    with pytest.raises(ValueError, match="end of fields"):
        with_tables(f"text {BEGIN} text")


def test_every_example_loads(tmp_path):
    (tmp_path / "configs").symlink_to(FOLDER)
    examples = blocks("yaml")
    assert len(examples) >= 2
    for number, example in enumerate(examples):
        path = tmp_path / f"{number}.yaml"
        path.write_text(example, encoding="utf-8")
        assert load_experiment(path).name in example


def test_every_set_on_the_page_is_understood():
    overrides = re.findall(r'--set ([a-z][a-z_.]*=(?:"[^"]*"|[^\s`":]+))(?=[\s`])', TEXT)
    assert len(overrides) >= 6
    for override in overrides:
        load_experiment(overrides=[override.replace('"', "")])


def test_the_errors_on_the_page_are_those_that_are_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = "".join(
        block for block in blocks("") if ": unknown key" in block or "no effect" in block
    )
    for wrong, override in (
        ("train: {label_smothing: 0.2}", []),
        ("train: {duration: 60}", []),
        ("{}", ["augment.flip=no"]),
        ("{}", ["optimizer.nesterov=true"]),
    ):
        (tmp_path / "flowers.yaml").write_text(wrong)
        with pytest.raises(ConfigError) as raised:
            load_experiment("flowers.yaml", overrides=override)
        assert str(raised.value) in said.splitlines()


def test_the_python_on_the_page_runs(capsys, monkeypatch):
    monkeypatch.chdir(FOLDER.parent)
    for block in blocks("python"):
        exec(block, {})
    assert "duration: 10 epochs" in capsys.readouterr().out
