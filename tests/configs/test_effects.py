"""Settings that another one turns off are refused, unless a layer above turns them off."""

from pathlib import Path

import pytest

from configs.load import ConfigError, load_experiment, save_experiment

SGD = "optimizer.name=sgd"
HEAD = "train.trainable=head"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def error_of(path=None, *overrides: str) -> str:
    with pytest.raises(ConfigError) as raised:
        load_experiment(path, overrides=overrides)
    assert len(str(raised.value).splitlines()) == 1
    return str(raised.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["schedule.warmup=0 steps", "schedule.warmup_from=0.5"],
            "schedule.warmup_from=0.5 has no effect with schedule.warmup=0 steps: leave it out, or set"
            " schedule.warmup above 0",
        ),
        (
            ["train.weight_decay=0", "train.weight_decay_pattern=.*kernel$"],
            "train.weight_decay_pattern=.*kernel$ has no effect with train.weight_decay=0.0: leave it out,"
            " or set train.weight_decay above 0",
        ),
        (
            ["train.weight_decay=0", "train.weight_decay_coupled=false"],
            "train.weight_decay_coupled=false has no effect with train.weight_decay=0.0: leave it out, or"
            " set train.weight_decay above 0",
        ),
        (
            [HEAD, "optimizer.layer_decay=0.5"],
            "optimizer.layer_decay=0.5 has no effect with train.trainable=head: leave it out, or set"
            " train.trainable to more than the head",
        ),
        (
            [SGD, "optimizer.momentum=0", "optimizer.nesterov=true"],
            "optimizer.nesterov=true has no effect with optimizer.momentum=0.0: leave it out, or set"
            " optimizer.momentum above 0",
        ),
        (
            [SGD, "optimizer.momentum=0", "optimizer.rate_in_velocity=true"],
            "optimizer.rate_in_velocity=true has no effect with optimizer.momentum=0.0: leave it out, or"
            " set optimizer.momentum above 0",
        ),
    ],
)
def test_a_setting_beside_what_turns_it_off_is_one_line(overrides, message):
    off, setting = overrides[-2:]
    assert error_of(None, *overrides) == f"--set {setting} and --set {off}: {message}"
    load_experiment(overrides=[each for each in overrides if each != off])
    load_experiment(overrides=[each for each in overrides if each != setting])


def test_a_setting_above_the_layer_that_turns_it_off_is_refused():
    Path("x.yaml").write_text("schedule: {warmup: 0 steps}")
    message = error_of("x.yaml", "schedule.warmup_from=0.5")
    assert message.startswith("--set schedule.warmup_from=0.5 and x.yaml: schedule.warmup_from=0.5")


@pytest.mark.parametrize(
    ("recipe", "override"),
    [
        ("efficientdet_d0", "train.weight_decay=0"),
        ("efficientdet_d0", "schedule.warmup=0 steps"),
        ("small_images", "optimizer.momentum=0"),
        ("finetune", HEAD),
        ("segmentation_finetune", HEAD),
    ],
)
def test_a_layer_may_turn_off_what_those_below_set(request, recipe, override):
    path = request.config.rootpath / f"configs/{recipe}.yaml"
    experiment = load_experiment(path, overrides=[override])
    save_experiment(experiment, "saved.yaml")
    assert load_experiment("saved.yaml") == experiment
    assert load_experiment("saved.yaml", overrides=["seed=1"]).seed == 1


def test_a_setting_counts_if_one_stage_uses_it():
    head_first = f"stages=[{{duration: 50 %, set: {{{HEAD.replace('=', ': ')}}}}}, {{}}]"
    load_experiment(overrides=[head_first, "optimizer.layer_decay=0.5"])
    decays = "stages=[{duration: 50 %}, {set: {train.weight_decay: 1.0e-4}}]"
    off = ["train.weight_decay=0", "train.weight_decay_pattern=.*kernel$"]
    load_experiment(overrides=[*off, decays])
    message = error_of(None, *off, "stages=[{duration: 50 %}, {}]")
    assert "has no effect with train.weight_decay=0.0 in every stage: leave it out" in message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            "schedule: {warmup: 0 steps, warmup_from: 0.5}",
            "schedule.warmup_from=0.5 has no effect with schedule.warmup=0 steps: leave it out, or set"
            " schedule.warmup above 0",
        ),
        (
            "train.trainable: head, optimizer.layer_decay: 0.5",
            "optimizer.layer_decay=0.5 has no effect with train.trainable=head: leave it out, or set"
            " train.trainable to more than the head",
        ),
    ],
)
def test_what_a_stage_sets_has_an_effect_in_this_stage(settings, message):
    Path("x.yaml").write_text(f"stages: [{{duration: 50 %}}, {{set: {{{settings}}}}}]")
    assert error_of("x.yaml") == f"x.yaml: stages[1].set: {message}"


def test_a_run_may_turn_off_what_a_stage_of_its_recipe_sets():
    Path("x.yaml").write_text("stages: [{set: {optimizer.layer_decay: 0.5}}]")
    load_experiment("x.yaml", overrides=[HEAD])


def test_a_run_that_an_older_version_has_saved_still_loads():
    Path("x.yaml").write_text(
        "format: 2\ntrain: {weight_decay: 0.0, weight_decay_pattern: .*kernel$}\n"
        "stages: [{set: {schedule.warmup: 0 steps, schedule.warmup_from: 0.5}}]"
    )
    assert load_experiment("x.yaml").train.weight_decay_pattern == ".*kernel$"
