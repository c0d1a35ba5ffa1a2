"""TensorFlow's file system in memory, `ram://`, takes the way that `gs://` takes."""

import pytest
import tensorflow as tf

from configs.load import ConfigError, load_experiment, save_experiment
from configs.schema import Experiment
from system.files import beside


def write(path: str, text: str) -> None:
    with tf.io.gfile.GFile(path, "w") as file:
        file.write(text)


def test_a_remote_experiment_and_its_base_are_read():
    tf.io.gfile.makedirs("ram://bucket/read")
    write("ram://bucket/below.yaml", "seed: 5")
    write("ram://bucket/read/x.yaml", "base: ../below.yaml\nname: ünder\n".replace("ü", "u"))
    experiment = load_experiment("ram://bucket/read/x.yaml")
    assert (experiment.seed, experiment.name) == (5, "under")


def test_a_remote_experiment_is_written_whole_and_alone():
    for seed in (1, 2):
        save_experiment(Experiment(seed=seed, model_dir="gs://bücket"), "ram://out/a/x.yaml")
    assert load_experiment("ram://out/a/x.yaml") == Experiment(seed=2, model_dir="gs://bücket")
    assert tf.io.gfile.listdir("ram://out/a") == ["x.yaml"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("ram://bucket/missing.yaml", "file not found"),
        ("nosuch://bucket/x.yaml", "File system scheme 'nosuch' not implemented"),
    ],
)
def test_a_remote_file_out_of_reach_is_one_line(path, message):
    with pytest.raises(ConfigError) as raised:
        load_experiment(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert message in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_a_place_that_cannot_be_written_is_one_line():
    with pytest.raises(ConfigError, match=r"^nosuch://b/x.yaml: cannot be written: .*nosuch"):
        save_experiment(Experiment(), "nosuch://b/x.yaml")


@pytest.mark.parametrize(
    ("path", "name", "place"),
    [
        ("gs://bucket/a/x.yaml", "y.yaml", "gs://bucket/a/y.yaml"),
        ("gs://bucket/a/x.yaml", "../y.yaml", "gs://bucket/y.yaml"),
        ("gs://bucket/a/x.yaml", "/configs/y.yaml", "/configs/y.yaml"),
        ("configs/x.yaml", "gs://bucket/y.yaml", "gs://bucket/y.yaml"),
        ("configs/x.yaml", "../y.yaml", "y.yaml"),
        ("x.yaml", "./y.yaml", "y.yaml"),
    ],
)
def test_a_base_lies_beside_the_file_that_names_it(path, name, place):
    assert beside(path, name) == place
