"""An experiment put together with its devices, its network and its data."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from configs.load import IMAGENET, load_experiment
from configs.model_file import write_model_file
from efficientnet import get_spec, to_plain
from input_pipeline.errors import DatasetError
from input_pipeline.sources.dataset_info import DatasetInfo, SplitInfo
from system.errors import UsageError
from training.devices.distribution import connect
from training.inputs import train_batch_spec
from training.job import (
    ExperimentError,
    check_batches,
    make_job,
    model_spec,
    open_job,
    skips_allowed,
)

SPLITS = {"train": SplitInfo(80), "validation": SplitInfo(10)}


def job_of(info: DatasetInfo, *overrides: str) -> object:
    experiment = load_experiment("configs/smoke.yaml", overrides=overrides)
    return make_job(experiment, info, connect("cpu"))


def test_a_job_needs_no_images_until_it_is_asked_for_them() -> None:
    missing = ["data.source=tfrecord", "data.data_dir=/nowhere"]
    job = job_of(DatasetInfo("pets", 7, None, SPLITS), *missing)
    assert (job.plan.num_examples, job.experiment.model.num_classes) == (80, 7)
    assert job.task.num_classes == 7
    with pytest.raises(DatasetError, match="/nowhere"):
        job.source()


def test_a_task_and_what_it_reads_are_the_experiments() -> None:
    of_many = ["task.name=multi_label", "task.max_labels=3"]
    job = job_of(DatasetInfo("pets", 7, None, SPLITS), *of_many)
    assert (job.task.num_classes, job.task.activation) == (7, "sigmoid")
    assert train_batch_spec(job)["label"] == tf.TensorSpec([8, 3], tf.int32)
    mixing = job_of(DatasetInfo("pets", 7, None, SPLITS), *of_many, "augment.mixup_alpha=0.2")
    assert train_batch_spec(mixing)["label"] == tf.TensorSpec([8, 7], tf.float32)


def test_class_weights_follow_from_the_training_images() -> None:
    uneven = {**SPLITS, "train": SplitInfo(80, class_counts=(60, 20))}
    job = job_of(DatasetInfo("pets", 2, None, uneven), "task.class_weights=balanced")
    np.testing.assert_allclose(job.task.class_weights, (80 / 120, 80 / 40))
    assert job.at(0).task == job.task
    job = job_of(DatasetInfo("pets", 2, None, uneven), "task.class_weights=[1, 2.5]")
    assert job.task.class_weights == (1.0, 2.5)


def test_class_weights_that_do_not_fit_the_data_are_one_line() -> None:
    info = DatasetInfo("pets", 7, None, SPLITS)
    with pytest.raises(UsageError, match=r"task\.class_weights=balanced needs the number of"):
        job_of(info, "task.class_weights=balanced")
    with pytest.raises(UsageError, match=r"task\.class_weights has 2 numbers for 7 classes"):
        job_of(info, "task.class_weights=[1, 2]")


def test_opened_images_stay_the_same() -> None:
    job = open_job(load_experiment("configs/smoke.yaml"), connect("cpu"))
    assert job.source() is job.source()
    assert job.data_info is job.source().info


def test_other_classes_than_the_datas_are_refused() -> None:
    with pytest.raises(
        ExperimentError, match=r"classes of pets are 7; set model\.num_classes=null"
    ):
        job_of(DatasetInfo("pets", 7, None, SPLITS), "model.num_classes=5")


def test_a_split_that_is_missing_is_one_line() -> None:
    with pytest.raises(DatasetError, match="pets has no split 'validation'"):
        job_of(DatasetInfo("pets", 7, None, {"train": SplitInfo(80)}))


def test_images_in_memory_replace_the_source(tmp_path: Path) -> None:
    experiment = load_experiment("configs/smoke.yaml", overrides=["data.cache=memory"])
    job = open_job(experiment, connect("cpu"))
    cached = job.with_cached_images()
    assert cached.source() is not job.source()
    assert cached.plan == job.plan


def test_a_model_file_and_its_changes_become_the_network(tmp_path: Path) -> None:
    path = str(tmp_path / "b1.yaml")
    write_model_file(path, to_plain(get_spec("efficientnet-b1")))
    values = {"model.name": path}
    assert model_spec(load_experiment(IMAGENET, values=values)) == get_spec("efficientnet-b1")
    changes = ["model.dropout=0.4", "batch_norm.momentum=0.9", "model.image_size=64"]
    spec = model_spec(load_experiment(IMAGENET, overrides=changes, values=values))
    expected = {"dropout": 0.4, "batch_norm_momentum": 0.9, "resolution": 64}
    assert spec == get_spec("efficientnet-b1", **expected)


def test_normalization_is_the_experiments() -> None:
    normalization = "[[127.5, 127.5, 127.5], [128, 128, 128]]"
    experiment = load_experiment(overrides=[f"model.normalization={normalization}"])
    spec = model_spec(experiment)
    assert (spec.mean_rgb, spec.stddev_rgb) == ((127.5,) * 3, (128.0,) * 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"activation": "swishy"},
            "model: activation is 'swishy', expected an activation of Keras",
        ),
    ],
)
def test_a_network_that_cannot_be_trained_is_one_line(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = str(tmp_path / "b1.yaml")
    write_model_file(path, {**to_plain(get_spec("efficientnet-b1")), **change})
    with pytest.raises(ExperimentError) as error:
        model_spec(load_experiment(IMAGENET, values={"model.name": path}))
    assert str(error.value).startswith(message)


def test_a_batch_that_cannot_be_accumulated_is_refused() -> None:
    experiment = load_experiment(
        "configs/smoke.yaml",
        overrides=["train.accumulation_steps=2", "eval.global_batch_size=5"],
    )
    check_batches(experiment, connect("cpu"))
    train = experiment.train.model_copy(update={"accumulation_steps": 4})
    experiment, mirrored = experiment.model_copy(update={"train": train}), connect("mirrored")
    with pytest.raises(ExperimentError, match=r"global_batch_size: 8 is not divisible"):
        check_batches(experiment, mirrored)


@pytest.mark.parametrize(
    ("overrides", "allowed"),
    [
        ([], 0),
        (["train.on_nonfinite=skip"], 10),
        (["train.on_nonfinite=skip", "train.max_skipped_steps=3"], 3),
    ],
)
def test_skipped_steps_are_counted_where_they_are_skipped(
    overrides: list[str], allowed: int
) -> None:
    assert skips_allowed(load_experiment(overrides=overrides)) == allowed
