"""Model files: read, refused in one line, written, and kept in a saved experiment."""

import re
from pathlib import Path

import pytest
import yaml

from configs.load import ConfigError, difference, load_experiment, save_experiment
from configs.model_file import ModelFileError, read_model_file, write_model_file

SMALL = """\
name: small
resolution: 32
stem: {filters: 8, stride: 1}
stages:
- {repeats: 1, kernel_size: 3, expand_ratio: 1, output_filters: 8}
- {repeats: 2, kernel_size: 5, stride: 2, expand_ratio: 4, output_filters: 16, shortcut: projection}
head: {filters: 32}
dropout: 0.1
"""
STAGES = SMALL[SMALL.index("stages") : SMALL.index("head")]
PRUNED = """\
name: pruned
resolution: [32, 48]
stem: null
blocks:
- {block: fused_mbconv, kernel_size: 3, expanded_filters: null, squeeze_filters: 0, output_filters: 8}
- {kernel_size: 3, stride: 2, expanded_filters: 21, squeeze_filters: 2, output_filters: 8}
head: {filters: null, pooling: max}
normalization: [[127.5, 127.5, 127.5], [127.5, 127.5, 127.5]]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty folder that is the current one, so that messages name files as they were given."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, text: str) -> str:
    Path(name).write_text(text, encoding="utf-8")
    return name


def test_stages_are_read_with_the_published_defaults():
    network = read_model_file(write("small.yaml", SMALL))
    assert (network.name, network.resolution, network.blocks) == ("small", 32, None)
    assert (network.stem.filters, network.stem.kernel_size, network.stem.stride) == (8, 3, 1)
    first, second = network.stages
    assert (first.block, first.stride, first.se_ratio) == ("mbconv", 1, 0.25)
    assert (second.stride, second.shortcut) == (2, "projection")
    assert (network.activation, network.dropout, network.survival_probability) == ("silu", 0.1, 0.8)


@pytest.mark.parametrize("text", [SMALL, PRUNED])
def test_what_is_written_reads_back_as_the_same_network(text):
    network = read_model_file(write("given.yaml", text))
    write_model_file("written.yaml", network.model_dump(mode="json"))
    assert read_model_file("written.yaml") == network
    lines = Path("written.yaml").read_text().splitlines()
    assert sum(line.startswith("- {") for line in lines) == 2  # a line for each stage or block


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("kernel_size: 3", "kernel_size: 0", "stages[0].kernel_size must be greater than or equal to 1"),
        ("kernel_size: 5", "kernel_size: 5.5", "stages[1].kernel_size must be a valid integer, not 5.5"),
        ("kernel_size: 3", "kernel: 3", "unknown key kernel in stages[0], which has repeats, block"),
        (", output_filters: 8", "", "stages[0].output_filters is missing"),
        ("shortcut: projection", "shortcut: add", "stages[1].shortcut must be 'identity', 'projection'"),
        ("filters: 8, stride: 1", "filters: 8, stride: two", 'stem.stride must be a valid integer'),
        ("resolution: 32", "resolution: [32]", "resolution must be pixels, at least 8, or [height"),
        ("resolution: 32", "resolution: [32, 4]", "resolution must be pixels, at least 8"),
        ("dropout: 0.1", "dropout: 1", "dropout must be less than 1, not 1"),
        ("dropout: 0.1", "drop: 0.1", "unknown key drop in a model file, which has name, resolution"),
        ("dropout: 0.1", "normalization: [[1, 1, 1], [1, 0, 1]]", "normalization must be [mean, standard"),
        ("dropout: 0.1", "blocks: []", "blocks"),
        (STAGES, "stages: 3\n", "stages must be a list, not 3"),
        (STAGES, "stages: [3]\n", "stages[0] must be keys and values, not 3"),
        (SMALL, "- 1", "expected keys and values, not [1]"),
        (SMALL, "a: {", "not a model file in YAML: line 1"),
        (STAGES, "", "a model file needs either stages or blocks"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_with_the_file_and_the_key(before, after, message):
    assert before in SMALL
    write("small.yaml", SMALL.replace(before, after, 1))
    with pytest.raises(ModelFileError) as raised:
        read_model_file("small.yaml")
    assert str(raised.value).startswith("small.yaml: ")
    assert message in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
    with pytest.raises(ConfigError, match=r"^small\.yaml: "):
        load_experiment(values={"model.name": "small.yaml"})


def test_the_examples_on_the_page_are_model_files():
    page = (Path(__file__).parents[2] / "docs/models.md").read_text("utf-8")
    examples = re.findall(r"^```yaml\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)
    assert len(examples) == 2
    for example in examples:
        assert f"name: {read_model_file(write('example.yaml', example)).name}" in example


def test_a_missing_file_is_named():
    with pytest.raises(ConfigError, match=r"^none\.yaml: model file not found$"):
        load_experiment(values={"model.name": "none.yaml"})


def test_a_file_that_cannot_be_written_is_one_line(tmp_path):
    plain = read_model_file(write("small.yaml", SMALL)).model_dump(mode="json")
    with pytest.raises(ModelFileError, match=r"must end in \.yaml or \.yml"):
        write_model_file("small.txt", plain)
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(ModelFileError, match=r"^folder\.yaml: cannot be written: "):
        write_model_file("folder.yaml", plain)
    with pytest.raises(ModelFileError, match=r"^new\.yaml: name is missing"):
        write_model_file("new.yaml", {key: plain[key] for key in plain if key != "name"})
    assert not Path("new.yaml").exists()


def test_a_saved_experiment_holds_the_network_and_needs_the_file_no_more():
    write("small.yaml", SMALL)
    experiment = load_experiment(values={"model.name": "small.yaml"})
    assert experiment.model.name == "small"
    assert experiment.model.network == read_model_file("small.yaml")
    Path("small.yaml").unlink()
    save_experiment(experiment, "experiment.yaml")
    assert load_experiment("experiment.yaml") == experiment


def test_a_model_file_named_in_an_experiment_counts_from_that_file(tmp_path):
    (tmp_path / "sub").mkdir()
    write("sub/small.yaml", SMALL)
    write("sub/x.yaml", "model: {name: small.yaml, dropout: 0.4}")
    assert load_experiment("sub/x.yaml").model.network.name == "small"
    assert load_experiment("sub/x.yaml").model.dropout == 0.4
    write("y.yaml", "base: sub/x.yaml")
    assert load_experiment("y.yaml").model.network.name == "small"
    (tmp_path / "sub/small.yaml").rename("small.yaml")
    overrides = ["model.name=small.yaml"]
    assert load_experiment(overrides=overrides).model.network.name == "small"


def test_a_published_name_above_takes_the_network_away():
    write("small.yaml", SMALL)
    write("x.yaml", "model: {name: small.yaml}")
    model = load_experiment("x.yaml", values={"model.name": "efficientnet-b1"}).model
    assert (model.name, model.network) == ("efficientnet-b1", None)


@pytest.mark.parametrize("key", ["width", "depth", "phi"])
def test_scaling_a_model_file_is_refused(key):
    write("small.yaml", SMALL)
    with pytest.raises(ConfigError) as raised:
        load_experiment(overrides=[f"model.{key}=2"], values={"model.name": "small.yaml"})
    assert str(raised.value) == (
        f"--set model.{key}=2 and --model=small.yaml: model.{key}=2 scales published models, and"
        f" small is a model file: set model.{key}=null"
    )


def test_a_damaged_network_in_a_saved_experiment_is_one_line():
    write("small.yaml", SMALL)
    save_experiment(load_experiment(values={"model.name": "small.yaml"}), "experiment.yaml")
    tree = yaml.safe_load(Path("experiment.yaml").read_text())
    tree["model"]["network"]["stages"][1]["kernel"] = 3
    write("experiment.yaml", yaml.safe_dump(tree))
    with pytest.raises(ConfigError) as raised:
        load_experiment("experiment.yaml")
    assert str(raised.value).startswith(
        "experiment.yaml: model.network: unknown key kernel in stages[1], which has repeats"
    )


def test_another_network_under_the_same_name_is_a_difference():
    write("small.yaml", SMALL)
    before = load_experiment(values={"model.name": "small.yaml"})
    write("small.yaml", SMALL.replace("kernel_size: 5", "kernel_size: 3"))
    after = load_experiment(values={"model.name": "small.yaml"})
    (line,) = difference(before, after, ("model",))
    assert line.startswith("model.network: ")
    without = after.model_copy(update={"model": after.model.model_copy(update={"network": None})})
    assert difference(without, after, ("model",))
    assert difference(after, without, ("model",))
