"""--mode=plan computes its forecast, from a report of the TPU compiler if there is one."""

import json
import types
from pathlib import Path

import numpy as np
import pytest

from configs.load import load_experiment
from efficientnet import complexity, get_spec
from efficientnet.weights import write_weights_file
from efficientnet.weights.expectations import Expectations
from system.errors import UsageError
from tests import runs
from training.devices.distribution import DistributionError
from training.forecast import forecast, printing
from training.forecast.tpu_chips import COMPILE_REPORT
from training.job import ExperimentError

ROOT = Path(__file__).resolve().parents[3]
B0 = ROOT / "configs/efficientnet_b0.yaml"
RECORD = {
    "recipe": "a name that no plan has",
    "model": "efficientnet-b0",
    "network": "project",
    "image_size": 224,
    "per_replica_batch": 64,
    "topology": "v5e:2x2",
    "compiles": True,
    "argument_bytes": 0.1e9,
    "temporary_bytes": 1.28e9,
    "state_bytes": 84_952_900,
    "flops": 1e9,
    "bytes_accessed": 819e9 * 0.01,
}


# What a recipe for any data needs to be planned without data.
PLANNED = ["data.source=tfrecord", "data.data_dir=null", "model.num_classes=1000"]


@pytest.fixture
def report(tmp_path):
    path = tmp_path / "report.json"
    path.write_text(json.dumps([RECORD]))
    return path


@pytest.fixture
def no_report(tmp_path):
    return tmp_path / "nothing.json"


def test_b0_is_planned_as_published(no_report):
    found = forecast.make_forecast(load_experiment(B0), None, no_report)
    assert found.plan.total_steps == 109_474
    assert found.epochs == pytest.approx(350, abs=0.01)
    assert found.parameters == 5_288_548
    assert found.stages[0].multiply_adds == pytest.approx(0.39e9, rel=0.02)
    # The peak of 0.256 is reached at the end of the warm-up, when two stairs are already gone.
    assert found.rates[0] == 0
    assert 0.24 < found.rates.max() <= 0.256
    # float32 weights, statistics, two slots and an average.
    assert found.stages[0].state_bytes == 4 * (2 * 5_330_564 + 2 * 5_288_548)


def test_shards_that_are_held_out_are_not_trained_on(no_report):
    recipe = load_experiment(ROOT / "configs/efficientnetv2_b0.yaml")
    assert forecast.make_forecast(recipe, None, no_report).plan.total_steps == 107_336


@pytest.mark.parametrize("model", ["s", "m", "l", "xl"])
def test_imagenet_21k_is_planned_without_its_data(model, no_report):
    recipe = load_experiment(ROOT / f"configs/efficientnetv2_{model}_21k.yaml")
    found = forecast.make_forecast(recipe, None, no_report)
    assert found.plan.num_examples == 12_720_275
    assert found.plan.total_steps == 186_332
    body = complexity(get_spec(f"efficientnetv2-{model}"), num_classes=None)
    assert found.parameters == body.trainable_parameters + 1281 * 21_843


def test_other_numbers_of_classes_are_planned_with_their_data(no_report):
    experiment = load_experiment(B0, overrides=["model.num_classes=100"])
    with pytest.raises(
        ExperimentError, match="needed to plan for 100 classes; without it, ImageNet"
    ):
        forecast.make_forecast(experiment, None, no_report)


def test_a_compile_report_tells_hours_batch_and_input(report):
    found = forecast.make_forecast(load_experiment(B0), "v5e:2x4", report)
    assert found.stages[0].per_replica_batch == 512
    # 20 MB of temporaries an image in what the chip's 16 GB leave.
    assert found.stages[0].largest_batch == int((16e9 * 0.9 - found.stages[0].state_bytes) / 20e6)
    text = "\n".join(printing.lines(found))
    hours = 350 * 1_281_167 / (6400 * 8) / 3600
    assert f"at best 51,200 images/s, {hours:.1f} hours" in text
    assert "51,200 images/s on each host of 1," in text


def test_a_report_of_another_chip_or_size_is_not_taken(report):
    for topology, change in (
        ("v4:2x2x1", "model.image_size=224"),
        ("v5e:2x4", "model.image_size=128"),
        ("v5e:2x4", "model.width=2"),
        ("v5e:2x4", "ema.decay=0"),
    ):
        experiment = load_experiment(B0, overrides=[change])
        found = forecast.make_forecast(experiment, topology, report)
        assert found.stages[0].at_best is None
        assert "python -m proofs.tpu_compile" in printing.lines(found)[-1]


def test_a_report_is_found_by_its_network_whatever_the_run_is_called(report):
    named = forecast.make_forecast(load_experiment(B0), "v5e:2x4", report)
    other = load_experiment(B0, overrides=["name=flowers"])
    found = forecast.make_forecast(other, "v5e:2x4", report)
    assert found.stages[0].largest_batch == named.stages[0].largest_batch
    assert found.stages[0].at_best == named.stages[0].at_best is not None


@pytest.mark.parametrize("change", [{"model": "efficientnet-lite0"}, {"task": "detection"}])
def test_a_report_of_another_network_is_not_taken_by_the_name_of_the_run(report, change):
    report.write_text(json.dumps([{**RECORD, "recipe": "efficientnet_b0", **change}]))
    found = forecast.make_forecast(load_experiment(B0), "v5e:2x4", report)
    assert found.stages[0].at_best is None


def test_every_committed_report_is_found_under_another_name():
    for record in json.loads(COMPILE_REPORT.read_text()):
        if record["network"] != "project":
            continue
        overrides = ["name=flowers", f"model.image_size={record['image_size']}", "progressive=null"]
        recipe = load_experiment(ROOT / f"configs/{record['recipe']}.yaml", overrides=overrides)
        (stage,) = forecast.make_forecast(recipe, record["topology"]).stages
        assert stage.record, record


def test_of_several_reports_the_one_with_the_nearest_batch_is_taken(report):
    larger = {**RECORD, "per_replica_batch": 256, "bytes_accessed": 819e9 * 0.02}
    report.write_text(json.dumps([RECORD, larger]))
    for topology, images_per_second in (("v5e:2x4", 256 / 0.02), ("v5e:8x8", 64 / 0.01)):
        found = forecast.make_forecast(load_experiment(B0), topology, report)
        assert found.stages[0].at_best.images_per_second == pytest.approx(images_per_second)


def test_a_batch_that_does_not_fit_is_said(no_report):
    found = forecast.make_forecast(load_experiment(B0), "v5e:2x2", no_report)
    assert any("too many, raise train.accumulation_steps" in x for x in printing.lines(found))
    small = load_experiment(B0, overrides=["train.accumulation_steps=16"])
    found = forecast.make_forecast(small, "v5e:2x2", no_report)
    assert not any("too many" in line for line in printing.lines(found))


def test_without_a_topology_no_hours_are_made_up(no_report):
    printed = printing.lines(forecast.make_forecast(load_experiment(B0), None, no_report))
    assert "give --topology" in printed[-1]
    assert not any("images/s" in line for line in printed)


@pytest.mark.parametrize("topology", ["v5e", "v5e:3x3"])
def test_a_topology_that_can_not_be_is_one_line(topology, no_report):
    with pytest.raises(UsageError) as error:
        forecast.make_forecast(load_experiment(B0), topology, no_report)
    assert len(str(error.value).splitlines()) == 1


def test_batch_norm_groups_that_do_not_divide_the_replicas_are_refused(no_report):
    experiment = load_experiment(B0, overrides=["batch_norm.group=3"])
    with pytest.raises(DistributionError, match=r"groups of 3 do not divide 4 replicas"):
        forecast.make_forecast(experiment, "v5e:2x2", no_report)


def test_the_command_plans_without_a_device(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    flags = ["--mode=plan", f"--config={B0}", "--topology=v4:2x2x1"]
    run = runs.in_this_process(capsys)
    status, out, err = run(*flags, f"--model_dir={tmp_path}/run", "--tpu=local")
    assert status == 0, err
    assert "109,474 steps of 4,096 images" in out


def test_the_state_holds_the_slots_of_whatever_optimizer(no_report, monkeypatch):
    three = types.SimpleNamespace(initial_slots={"rms": 1.0, "momentum": 0.0, "third": 0.0})
    monkeypatch.setattr(forecast, "make_optimizer", lambda experiment: three)
    found = forecast.make_forecast(load_experiment(B0), None, no_report)
    assert found.stages[0].state_bytes == 4 * (2 * 5_330_564 + 3 * 5_288_548)


def test_stages_are_planned_one_by_one(no_report, tmp_path):
    stages = (
        "stages=[{duration: 25 %, set: {model.image_size: 112}},"
        " {set: {train.global_batch_size: 2048}}]"
    )
    alone = forecast.make_forecast(load_experiment(B0), "v5e:2x4", no_report)
    found = forecast.make_forecast(load_experiment(B0, overrides=[stages]), "v5e:2x4", no_report)
    first, second = found.stages
    assert first.multiply_adds < 0.3 * second.multiply_adds == 0.3 * alone.stages[0].multiply_adds
    assert (first.per_replica_batch, second.per_replica_batch) == (512, 256)
    assert found.epochs == pytest.approx(350, abs=0.01)
    # Half the batch has half the rate, at the same place in the stream.
    assert found.rates[-1] == pytest.approx(alone.rates[-1] / 2)
    text = "\n".join(printing.lines(found))
    assert "stage 1 of 2 (model.image_size=112): 27,368 steps of 4,096 images: 87.5 epochs" in text
    assert "stage 2 of 2 (train.global_batch_size=2048): 164,213 steps of 2,048 images" in text
    pytest.importorskip("matplotlib")
    printing.draw(found, str(tmp_path / "rate.png"))
    assert (tmp_path / "rate.png").stat().st_size > 0


def test_a_size_between_two_reports_is_interpolated_by_its_pixels(report):
    large = {**RECORD, "image_size": 448, "bytes_accessed": 4 * RECORD["bytes_accessed"]}
    report.write_text(json.dumps([large, RECORD]))
    experiment = load_experiment(B0, overrides=["model.image_size=336"])  # 2.25 times the pixels
    found = forecast.make_forecast(experiment, "v5e:2x4", report)
    assert found.stages[0].at_best.images_per_second == pytest.approx(6400 / 2.25)
    text = "\n".join(printing.lines(found))
    assert "roofline of the compiled step, interpolated between 224 and 448 px; a real" in text
    for size, records in ((512, [large, RECORD]), (336, [RECORD])):
        report.write_text(json.dumps(records))
        outside = load_experiment(B0, overrides=[f"model.image_size={size}"])
        assert forecast.make_forecast(outside, "v5e:2x4", report).stages[0].at_best is None


def test_hours_of_all_stages_are_added_up(report):
    large = {**RECORD, "image_size": 448, "bytes_accessed": 4 * RECORD["bytes_accessed"]}
    report.write_text(json.dumps([large, RECORD]))
    stages = (
        "stages=[{duration: 50 %, set: {model.image_size: 224}}, {set: {model.image_size: 448}}]"
    )
    found = forecast.make_forecast(load_experiment(B0, overrides=[stages]), "v5e:2x4", report)
    hours = 350 * 1_281_167 / (6400 * 8) / 3600 * (0.5 + 0.5 * 4)
    assert printing.lines(found)[-1] == f"all stages: at best {hours:.1f} hours"


def test_a_whole_report_is_preferred_to_an_extrapolated_one(report):
    part = {**RECORD, "blocks": [6, 16], "bytes_accessed": 2 * RECORD["bytes_accessed"]}
    for records, note in (
        ([part], ", extrapolated from 6 of 16 blocks; a real"),
        ([part, RECORD], "step; a real"),
    ):
        report.write_text(json.dumps(records))
        found = forecast.make_forecast(load_experiment(B0), "v5e:2x4", report)
        assert note in "\n".join(printing.lines(found))


def test_a_stage_says_what_it_trains_and_what_that_costs(no_report):
    stages = "stages=[{duration: 25 %, set: {train.trainable: head}}, {}]"
    found = forecast.make_forecast(load_experiment(B0, overrides=[stages]), None, no_report)
    head, whole = found.stages
    assert (head.trained_parameters, whole.trained_parameters) == (1_281_000, 5_288_548)
    assert head.training_multiply_adds == head.multiply_adds + 1_280_000
    # Two slots of RMSProp for all weights, in both stages.
    assert head.slot_bytes == whole.slot_bytes == 4 * 2 * 5_288_548
    (line,) = (line for line in printing.lines(found) if line.startswith("trains "))
    assert line == (
        "trains 1,281,000 of 5,288,548 parameters: a step takes 1.0 times the multiply-adds of the forward"
        " pass; the optimizer keeps 42 MB of slots for all of them"
    )


def test_a_stage_keeps_activations_from_the_first_layer_that_trains_on(no_report):
    def sizes(*overrides):
        file = ROOT / "configs/finetune_progressive.yaml"
        recipe = load_experiment(file, overrides=[*PLANNED, *overrides])
        found = forecast.make_forecast(recipe, None, no_report)
        return [stage.activation_bytes for stage in found.stages]

    head, last_stage, last_stages, everything = sizes()
    # What the last stage keeps is less than what the stages below it need at a time.
    assert head == last_stage < last_stages < everything / 4
    assert sizes("stages=[]") == [everything]


def test_a_linear_probe_fits_where_training_everything_does_not(no_report):
    b7 = [*PLANNED, "model.name=efficientnet-b7", "train.global_batch_size=256"]
    probe = load_experiment(ROOT / "configs/linear_probe.yaml", overrides=b7)
    whole = load_experiment(
        ROOT / "configs/linear_probe.yaml", overrides=[*b7, "train.trainable=all"]
    )
    for experiment, fits in ((probe, True), (whole, False)):
        found = forecast.make_forecast(experiment, "v3:2x2", no_report)
        assert (found.stages[0].per_replica_batch <= found.stages[0].largest_batch) == fits
        too_many = "too many, raise train.accumulation_steps" in "\n".join(printing.lines(found))
        assert too_many != fits


def test_a_report_of_a_step_that_trains_everything_does_not_hide_that_a_frozen_one_needs_less(
    report,
):
    frozen = load_experiment(B0, overrides=["train.trainable=head"])
    found = forecast.make_forecast(frozen, "v5e:2x4", report)
    (stage,) = found.stages
    assert stage.activation_bytes < 20e6  # of the report
    left = 16e9 * 0.9 - stage.state_bytes
    assert stage.largest_batch == int(left / stage.activation_bytes)
    assert f"{stage.largest_batch:,} would fit (by the activations)" in "\n".join(
        printing.lines(found)
    )


def test_the_compilers_bytes_decide_where_nothing_is_frozen(tmp_path):
    path = tmp_path / "larger.json"
    path.write_text(json.dumps([RECORD | {"temporary_bytes": 64 * 900e6}]))
    found = forecast.make_forecast(load_experiment(B0), "v5e:2x4", path)
    (stage,) = found.stages
    assert stage.activation_bytes < 900e6
    assert stage.largest_batch == int((16e9 * 0.9 - stage.state_bytes) / 900e6)
    assert "would fit (by the compiler)" in "\n".join(printing.lines(found))


def test_a_report_without_the_networks_name_is_of_no_use(tmp_path):
    path = tmp_path / "older.json"
    path.write_text(json.dumps([{k: v for k, v in RECORD.items() if k != "model"}]))
    found = forecast.make_forecast(load_experiment(B0), "v5e:2x4", path)
    assert found.stages[0].record is None


def test_each_stage_says_its_rates(no_report):
    stages = (
        "stages=[{duration: 25 %, set: {schedule.name: constant, schedule.warmup: 0 steps}},"
        " {set: {schedule.name: cosine, schedule.warmup: 1000 steps}}]"
    )
    found = forecast.make_forecast(load_experiment(B0, overrides=[stages]), None, no_report)
    first, second = (stage.rates for stage in found.stages)
    assert first == pytest.approx((0.256, 0.256, 0, 0.256))
    assert second.first == 0
    # The last step of the warm-up and the first after it, which the cosine has begun to lower.
    assert second.peak_step in (27_368 + 999, 27_368 + 1000)
    assert 0.255 < second.highest < 0.256
    assert second.last < 1e-6
    flat, curved = (line for line in printing.lines(found) if line.startswith("stage "))
    assert "87.5 epochs of 1,281,167; learning rate 0.256; evaluated every" in flat
    assert (
        f"; learning rate from 0 to {second.last:.3g}, highest {second.highest:.4g} "
        f"at step {second.peak_step:,}; evaluated every" in curved
    )
    assert printing.lines(found)[1].count("highest 0.256 at step 0,") == 1


def test_a_single_stage_says_its_rate_once_and_exactly(no_report):
    found = forecast.make_forecast(load_experiment(B0), None, no_report)
    text = "\n".join(printing.lines(found))
    assert text.count("learning rate") == 1
    assert f"highest {found.stages[0].rates.highest:.4g} at step 1,562," in text


def test_hours_of_a_step_that_trains_everything_are_said_to_be_that(report):
    frozen = load_experiment(B0, overrides=["train.trainable=blocks>=9"])
    whole = "hours and images/s are those of steps that train everything: frozen parts save some"
    assert whole in printing.lines(forecast.make_forecast(frozen, "v5e:2x4", report))
    assert whole not in printing.lines(
        forecast.make_forecast(load_experiment(B0), "v5e:2x4", report)
    )


def test_a_rule_that_trains_nothing_is_refused(no_report):
    experiment = load_experiment(B0, overrides=["train.trainable=blocks"])
    with pytest.raises(UsageError, match=r"train\.trainable=blocks: no variable of"):
        forecast.make_forecast(experiment, None, no_report)


def test_the_classes_are_those_of_the_data(no_report, tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        for number in range(10):
            (tmp_path / name / f"{number}.png").touch()
    data = ["data.source=image_folder", f"data.data_dir={tmp_path}"]
    found = forecast.make_forecast(load_experiment(B0, overrides=data), None, no_report)
    assert found.parameters == 4_007_548 + 3 * 1281
    assert found.plan.num_examples == 27
    five = load_experiment(B0, overrides=[*data, "model.num_classes=5"])
    with pytest.raises(UsageError, match=r"model\.num_classes: 5, but the classes of .* are 3"):
        forecast.make_forecast(five, None, no_report)


def test_what_the_initial_weights_expect_is_settled_as_in_training(no_report, tmp_path):
    spec, file = get_spec("efficientnet-b0", width=0.25, depth=0.5), tmp_path / "x.weights.h5"
    shapes = complexity(spec, num_classes=5).variable_shapes
    zeros = {path: np.zeros(shape, np.float32) for path, shape in shapes.items()}
    write_weights_file(file, spec, zeros, Expectations("a test", image_size=48))

    def plan(image_size):
        settings = [f"init.weights={file}", "init.strict=true", f"model.image_size={image_size}"]
        experiment = load_experiment(ROOT / "configs/smoke.yaml", overrides=settings)
        return forecast.make_forecast(experiment, None, no_report)

    assert plan("null").stages[0].spec.resolution == 48
    with pytest.raises(UsageError, match=r"model\.image_size=64, and the weights of a test expect"):
        plan(64)
