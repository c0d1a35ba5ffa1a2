"""Sections that come in kinds: the fields of each, and the precedence of the layers."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from configs.describe import allowed_values, kind_labels
from configs.load import ConfigError, difference, load_experiment, save_experiment, to_yaml
from configs.schema import (
    KINDS,
    SGD,
    TFDS,
    AutoAugment,
    Experiment,
    NoAugment,
    RandAugment,
    RMSProp,
    section_classes,
)
from configs.schema.data import Data
from configs.schema.optimizer import Optimizer
from configs.schema.results import Squash
from configs.sections import own_fields, own_settings, shared_class


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def loaded(text="{}", overrides=(), **bases) -> Experiment:
    """The experiment of a file x.yaml with `text` and files beside it."""
    for name, content in {**bases, "x": text}.items():
        Path(f"{name}.yaml").write_text(content, encoding="utf-8")
    return load_experiment("x.yaml", overrides=overrides)


def error_of(text="{}", overrides=(), **bases) -> str:
    with pytest.raises(ConfigError) as raised:
        loaded(text, overrides, **bases)
    assert len(str(raised.value).splitlines()) == 1
    return str(raised.value)


# What a kind takes

DATA = (
    "eval_split, cache, cache_dir, service, on_error, max_error_fraction,"
    " data_dir, holdout_shards, shuffle_buffer_mib"
)
AUGMENT = (
    "framing, flip, crop_area, crop_aspect_ratio, scale_range, resize, random_erasing, mixup_alpha,"
    " cutmix_alpha, pairing"
)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["optimizer.nesterov=true"],
            "optimizer.nesterov=true has no effect with optimizer.name=rmsprop, which takes layer_decay,"
            " decay, momentum, epsilon; nesterov is for sgd",
        ),
        (
            ["optimizer.name=sgd", "optimizer.epsilon=0.1"],
            "optimizer.epsilon=0.1 has no effect with optimizer.name=sgd, which takes layer_decay,"
            " momentum, nesterov, rate_in_velocity; epsilon is for rmsprop or adamw",
        ),
        (
            ["augment.magnitude=9"],
            "augment.magnitude=9 has no effect with augment.policy=autoaugment, which takes"
            f" {AUGMENT}, quirks; magnitude is for randaugment",
        ),
        (
            ["augment.policy=none", "augment.layers=2"],
            "augment.layers=2 has no effect with augment.policy=none, which takes"
            f" {AUGMENT}; layers is for randaugment",
        ),
        (
            ["augment.policy=none", "augment.quirks=false"],
            "augment.quirks=false has no effect with augment.policy=none, which takes"
            f" {AUGMENT}; quirks is for autoaugment or randaugment",
        ),
        (
            ["schedule.name=cosine", "schedule.decay_rate=0.9"],
            "schedule.decay_rate=0.9 has no effect with schedule.name=cosine, which takes"
            " learning_rate, warmup, warmup_from, ends_before; decay_rate is for exponential",
        ),
        (
            ["data.num_train_examples=5"],
            "data.num_train_examples=5 has no effect with data.source=tfrecord, which takes"
            f" {DATA}; num_train_examples is for synthetic",
        ),
        (
            ["data.source=tfds:mnist", "data.num_train_examples=5"],
            f"data.num_train_examples=5 has no effect with data.source=tfds, which takes {DATA};"
            " num_train_examples is for synthetic",
        ),
        (
            ["train.max_skipped_steps=5"],
            "train.max_skipped_steps=5 has no effect with train.on_nonfinite=stop: it is for skip",
        ),
    ],
)
def test_a_setting_without_effect_is_one_line_that_names_what_the_kind_takes(overrides, message):
    assert error_of(overrides=overrides).endswith(f"--set {overrides[-1]}: {message}")


def test_a_setting_without_effect_is_named_with_its_file():
    assert error_of("optimizer: {nesterov: true}").startswith("x.yaml: optimizer.nesterov=true has")
    message = error_of("train: {max_skipped_steps: 5}")
    assert message.startswith("x.yaml: train.max_skipped_steps=5 has no effect with train.on_nonf")


def test_steps_that_are_skipped_may_be_counted():
    train = loaded("train: {on_nonfinite: skip, max_skipped_steps: 0}").train
    assert train.max_skipped_steps == 0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.name=sdg", 'optimizer.name must be rmsprop, sgd, adamw or lars, not "sdg"'),
        ("optimizer.name=", "optimizer.name must be rmsprop, sgd, adamw or lars, not null"),
        ("optimizer.name=[sgd]", 'optimizer.name must be rmsprop, sgd, adamw or lars, not ["sgd"]'),
        (
            "optimizer=sgd",
            "optimizer must be a section with the keys name, layer_decay, decay, ",
        ),
        (
            "data.source=tfds",
            "data.source must be tfrecord, image_folder[:SHARE], csv[:SHARE], ",
        ),
        (
            "data.source='tfds:'",
            "data.source must be tfrecord, image_folder[:SHARE], csv[:SHARE], ",
        ),
        (
            "data.source=digits:1",
            "data.source must be tfrecord, image_folder[:SHARE], csv[:SHARE], ",
        ),
        ("optimizer.nestrov=true", "unknown key optimizer.nestrov (with the value true); did you"),
        ("optimizer.sgd.nesterov=true", "unknown key optimizer.sgd (with the value {"),
    ],
)
def test_a_kind_that_is_none_is_one_line(override, message):
    assert error_of(overrides=[override]).startswith(f"--set {override}: {message}")


def test_minival_is_of_sources_in_shards():
    message = error_of("data: {source: digits, eval_split: minival}")
    assert message.endswith("data.source=digits is not read in shards: expected validation")
    with pytest.raises(ConfigError, match="holdout_shards must be at least 1"):
        loaded("data: {source: 'tfds:mnist', eval_split: minival}")
    assert loaded("data: {eval_split: minival, holdout_shards: 2}").data.eval_split == "minival"


# Precedence of the layers


def test_a_section_that_names_no_kind_is_of_the_first():
    for name, kinds in KINDS.items():
        assert isinstance(getattr(Experiment(), name), kinds.classes[kinds.default])
        assert kinds.of({}) == kinds.default
    assert Experiment(optimizer={"momentum": 0.5}).optimizer == RMSProp(momentum=0.5)


def test_another_kind_replaces_what_is_the_kinds_own_and_keeps_what_all_share():
    base = "augment: {policy: randaugment, magnitude: 9, layers: 3, quirks: false, flip: false}"
    augment = loaded(
        "base: base.yaml\naugment: {policy: none, resize: bilinear}", base=base
    ).augment
    assert augment == NoAugment(flip=False, resize="bilinear")
    assert loaded(base, ["augment.policy=none"]).augment == NoAugment(flip=False)
    # Both kinds have quirks, each its own.
    assert loaded(base, ["augment.policy=autoaugment"]).augment == AutoAugment(flip=False)


def test_the_same_kind_is_merged():
    base = "augment: {policy: randaugment, magnitude: 9}"
    augment = loaded(base, ["augment.policy=randaugment", "augment.layers=1"]).augment
    assert augment == RandAugment(magnitude=9.0, layers=1)
    data = loaded("data: {source: 'tfds:a', data_dir: x}", ["data.source=tfds:b"]).data
    assert data == TFDS(source="tfds:b", data_dir="x")


def test_the_published_optimizer_in_a_base_does_not_stand_in_the_way_of_another():
    base = "optimizer: {decay: 0.8, momentum: 0.7, epsilon: 0.1}"
    assert loaded(base, ["optimizer.name=sgd"]).optimizer == SGD()
    assert loaded("base: base.yaml\noptimizer: {name: sgd}", base=base).optimizer == SGD()


def test_a_kind_that_comes_back_starts_from_its_defaults():
    experiment = loaded(
        "base: [a.yaml, b.yaml]\noptimizer: {name: rmsprop, momentum: 0.5}",
        a="optimizer: {decay: 0.8}",
        b="optimizer: {name: sgd, nesterov: true}",
    )
    assert experiment.optimizer == RMSProp(momentum=0.5)


@pytest.mark.parametrize("turn", [1, -1])
def test_all_set_of_a_command_are_given_at_once(turn):
    overrides = ["optimizer.nesterov=true", "optimizer.name=sgd", "optimizer.momentum=0.5"][::turn]
    experiment = loaded("optimizer: {decay: 0.8}", overrides)
    assert experiment.optimizer == SGD(nesterov=True, momentum=0.5)


def test_of_two_set_the_later_names_the_kind():
    overrides = ["optimizer.name=sgd", "optimizer.name=rmsprop"]
    assert loaded("optimizer: {decay: 0.8}", overrides).optimizer == RMSProp(decay=0.8)


def test_flags_lie_over_the_kind_that_set_names():
    Path("x.yaml").write_text("data: {data_dir: below, holdout_shards: 2}")
    overrides, values = ["data.source=image_folder"], {"data.data_dir": "above"}
    data = load_experiment("x.yaml", overrides=overrides, values=values).data
    assert own_settings(data) == {"data_dir": "above", "sampling": "uniform"}
    given = own_settings(load_experiment("x.yaml", overrides=overrides).data)
    assert given == {"data_dir": None, "sampling": "uniform"}


def test_a_wrong_key_of_the_base_is_not_hidden_by_another_kind():
    message = error_of("optimizer: {deacy: 0.8}", ["optimizer.name=sgd"])
    assert message.startswith("x.yaml: unknown key optimizer.deacy (with the value 0.8)")


# The classes


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_says_which_it_is_in_the_fields_that_all_share(name):
    kinds = KINDS[name]
    for kind, section in kinds.classes.items():
        assert shared_class(section) is shared_class(kinds.classes[kinds.default])
        assert kinds.key not in own_fields(section)
        assert kinds.of({kinds.key: kind}) == kind
    assert all(
        label in allowed_values((name, kinds.default, kinds.key)) for label in kind_labels(name)
    )


def test_own_settings_are_the_values_of_the_kind_alone():
    assert own_settings(SGD(nesterov=True)) == {
        "momentum": 0.9,
        "nesterov": True,
        "rate_in_velocity": False,
    }
    assert own_settings(NoAugment(flip=False)) == {}
    assert own_fields(TFDS) == {"data_dir", "holdout_shards", "shuffle_buffer_mib"}


def test_the_class_of_what_kinds_share_is_no_kind():
    for section in (Optimizer(name="sgd"), Data(source="digits")):
        with pytest.raises(ValidationError):
            Experiment(**{{Optimizer: "optimizer", Data: "data"}[type(section)]: section})


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_reads_back_as_it_was_written(name):
    kinds = KINDS[name]
    for kind, section in kinds.classes.items():
        value = section(**{kinds.key: "tfds:some/name" if kind == "tfds" else kind})
        # Detection refuses the default, which cuts objects off.
        others = {"eval": Squash()} if kind == "detection" else {}
        written = Experiment(**{name: value}, **others)
        Path("x.yaml").write_text(to_yaml(written), encoding="utf-8")
        assert load_experiment("x.yaml") == written
        assert difference(written, load_experiment("x.yaml")) == []


def test_section_classes_hold_every_section():
    assert section_classes().keys() == Experiment.model_fields.keys() - {
        "name",
        "model_dir",
        "seed",
        "stages",
        "progressive",
    }


def test_lars_refuses_the_decay_in_the_loss():
    overrides = ["optimizer.name=lars", "train.weight_decay_coupled=true"]
    assert "optimizer.name=lars takes the weight decay into its trust ratio" in error_of(
        overrides=overrides
    )
    assert loaded(overrides=overrides[:1]).optimizer.name == "lars"


@pytest.mark.parametrize("factors", ["[1.0]", "[1.0, 0.1, 0.01]"])
def test_stairs_need_one_factor_more_than_boundaries(factors):
    overrides = ["schedule.name=stepwise", "schedule.boundaries=[30 epochs]"]
    assert "expected one more than boundaries" in error_of(
        overrides=[*overrides, f"schedule.factors={factors}"]
    )


@pytest.mark.parametrize("boundaries", ["[9 steps, 5 steps]", "[5 steps, 2 epochs, 5 steps]"])
def test_boundaries_that_do_not_increase_are_one_line(boundaries):
    count = boundaries.count(",") + 2
    overrides = [f"schedule.boundaries={boundaries}", f"schedule.factors={[1.0] * count}"]
    later, earlier = "5 steps", boundaries[1:8]
    assert (
        f"schedule.boundaries must increase, and {later} follows {earlier}: sort them, with their factors"
        in error_of(overrides=["schedule.name=stepwise", *overrides])
    )


def test_a_saved_run_keeps_its_boundaries(tmp_path):
    overrides = ["schedule.name=stepwise", "schedule.factors=[1.0, 0.1, 0.01]"]
    run = load_experiment(overrides=[*overrides, "schedule.boundaries=[5 steps, 9 steps]"])
    path = tmp_path / "experiment.yaml"
    save_experiment(run, path)
    path.write_text(path.read_text().replace("5 steps", "19 steps"))
    assert str(load_experiment(path).schedule.boundaries[0]) == "19 steps"


def test_boundaries_of_several_units_may_increase():
    overrides = [
        "schedule.boundaries=[50 steps, 2 epochs, 90 steps]",
        "schedule.factors=[1, 1, 1, 0]",
    ]
    assert len(loaded(overrides=["schedule.name=stepwise", *overrides]).schedule.boundaries) == 3


def test_a_pattern_that_is_no_regular_expression_is_one_line():
    assert "train.weight_decay_pattern must be a regular expression" in error_of(
        overrides=["train.weight_decay_pattern='('"]
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.max_error_fraction=0.1"], "has no effect with data.on_error=fail: it is for skip"),
        (["ema.decay=0", "ema.ramp=false"], "ema.ramp=false has no effect with ema.decay=0"),
        (["ema.decay=0", "ema.statistics=false"], "ema.statistics=false has no effect with"),
        (["ema.ramp=false", "ema.ramp_start=0"], "ema.ramp_start=0 has no effect without a ramp"),
        (["augment.pairing=reversed"], "augment.pairing=reversed has no effect without mixing"),
        (
            ["data.source=csv", "data.sampling=balanced", "task.class_weights=balanced"],
            "both make up for uneven classes: give one of the two",
        ),
    ],
)
def test_a_setting_that_another_one_turns_off_is_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_experiment(overrides=overrides)


@pytest.mark.parametrize(
    ("given", "held"), [("photos/", "photos"), ("gs://b/photos//", "gs://b/photos"), ("/", "/")]
)
def test_a_folder_of_data_has_one_name(given: str, held: str) -> None:
    overrides = ["data.source=image_folder", f"data.data_dir={given}"]
    assert load_experiment(overrides=overrides).data.data_dir == held
