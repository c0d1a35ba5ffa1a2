"""Experiment files that older versions saved are read, and their runs go on."""

from pathlib import Path

import pytest
import yaml

from configs.load import RESUME_KEYS, ConfigError, difference, load_experiment, to_yaml
from configs.schema import RandAugment, RMSProp

# As `python main.py` saved it before files had a format.
DIGITS = """\
name: digits
model_dir: runs/digits
seed: 0
model:
  name: efficientnet-b0
  num_classes: 10
  image_size: 32
  width: null
  depth: null
  phi: null
  dropout: null
  survival_probability: 0.9
data:
  source: digits
  data_dir: null
  eval_split: validation
  holdout_shards: 0
  num_train_examples: null
  shuffle_buffer_mib: 16.0
  cache: none
  cache_dir: null
  service: null
  on_error: fail
  max_error_fraction: 0.001
augment:
  policy: randaugment
  layers: 1
  magnitude: 2.0
  magnitude_std: 0.0
  quirks: false
  flip: false
  crop_area:
  - 0.8
  - 1.0
  crop_aspect_ratio:
  - 0.9
  - 1.1
  resize: bicubic
  random_erasing: 0.0
  mixup_alpha: 0.0
  cutmix_alpha: 0.0
train:
  global_batch_size: 32
  duration: 18 epochs
  accumulation_steps: 1
  steps_per_call: 20
  label_smoothing: 0.1
  weight_decay: 1.0e-05
  gradient_clip_norm: null
  precision: auto
  on_nonfinite: stop
  max_skipped_steps: 10
optimizer:
  name: rmsprop
  momentum: 0.9
  decay: 0.9
  epsilon: 0.001
  nesterov: false
schedule:
  name: exponential
  learning_rate: 0.004
  warmup: 2 epochs
  decay_every: 1 epochs
  decay_rate: 0.89
ema:
  decay: 0.99
  ramp: true
batch_norm:
  momentum: 0.9
  epsilon: 0.1
  group: recipe
eval:
  every: 3 epochs
  global_batch_size: null
  crop_padding: 2
  weights: ema
  timeout_minutes: 60.0
checkpoint:
  every: 3 epochs
  keep: 3
  asynchronous: true
init:
  weights: null
export:
  formats:
  - saved_model
  weights: ema
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def loaded(text, **arguments):
    Path("x.yaml").write_text(text, encoding="utf-8")
    return load_experiment("x.yaml", **arguments)


def test_a_saved_file_names_its_format():
    assert to_yaml(load_experiment()).startswith("format: 2\nname: digits\n")


def test_a_file_without_a_format_that_the_program_saved_is_read():
    experiment = loaded(DIGITS)
    assert experiment.optimizer == RMSProp()
    assert experiment.augment.policy == "randaugment"
    assert str(experiment.schedule.decay_every) == "1 epochs"
    assert experiment.data.source == "digits"
    assert experiment.train.max_skipped_steps is None


def test_a_run_that_an_older_version_started_is_resumed_by_its_command():
    # The model's classes are known from the data by the time of the comparison.
    now = load_experiment(overrides=["model.num_classes=10"])
    assert difference(loaded(DIGITS), now, RESUME_KEYS) == []


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("optimizer", {"name": "sgd"}),
        ("schedule", {"name": "cosine"}),
        ("schedule", {"name": "constant"}),
        ("augment", {"policy": "none"}),
        ("augment", {"policy": "autoaugment"}),
        ("data", {"source": "tfrecord", "data_dir": "x", "holdout_shards": 2}),
        ("data", {"source": "image_folder:0.2", "data_dir": "x"}),
        ("data", {"source": "tfds:mnist", "holdout_shards": 2}),
        ("data", {"source": "synthetic", "num_train_examples": 80}),
        ("train", {"on_nonfinite": "skip", "max_skipped_steps": 3}),
    ],
)
def test_every_kind_of_an_old_file_is_read_with_what_it_used(section, values):
    tree = yaml.safe_load(DIGITS)
    tree[section] |= values
    read = getattr(loaded(yaml.safe_dump(tree)), section)
    assert {key: getattr(read, key) for key in values} == values


def test_an_old_run_without_an_average_uses_its_raw_weights():
    experiment = loaded(DIGITS.replace("decay: 0.99", "decay: 0"))
    assert (experiment.eval.weights, experiment.export.weights) == (None, None)
    assert loaded(DIGITS).eval.weights == "ema"


def test_set_lies_over_an_old_file_as_over_any():
    assert loaded(DIGITS, overrides=["augment.magnitude=5"]).augment.magnitude == 5
    with pytest.raises(ConfigError, match=r"nesterov=true has no effect with optimizer.name=rms"):
        loaded(DIGITS, overrides=["optimizer.nesterov=true"])


def test_a_file_by_hand_is_held_to_what_its_kinds_take():
    tree = yaml.safe_load(DIGITS)
    del tree["schedule"]["decay_rate"]  # no program saved that
    with pytest.raises(ConfigError, match="has no effect"):
        loaded(yaml.safe_dump(tree))
    with pytest.raises(ConfigError, match="has no effect"):
        loaded(f"format: 2\n{DIGITS}")


def test_a_file_by_hand_may_name_the_format():
    text = "format: 2\naugment: {policy: randaugment, layers: 1}"
    assert loaded(text).augment == RandAugment(layers=1)


def test_a_file_from_before_tasks_is_a_classification():
    tree = yaml.safe_load(to_yaml(load_experiment()))
    del tree["task"]
    assert loaded(yaml.safe_dump(tree)) == load_experiment()


@pytest.mark.parametrize("value", ["3", "1", "true", "'2'", "null", "2.0"])
def test_another_format_is_one_line(value):
    with pytest.raises(ConfigError) as raised:
        loaded(f"format: {value}")
    shown = {"true": "true", "null": "null", "'2'": '"2"'}.get(value, value)
    assert str(raised.value) == (
        f"x.yaml: format must be 2, not {shown}: use the version that saved the file"
    )
