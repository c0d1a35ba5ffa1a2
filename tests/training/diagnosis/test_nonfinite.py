"""A step that is not finite: training halts before it, reports the layer, and saves it for replay."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from configs.load import load_experiment
from proofs.faults import CONFIG
from run_folder.checkpoints import CheckpointStore
from tests import runs
from tests.training import tiny
from training.build import make_recipe, make_state
from training.diagnosis.nonfinite import Incident, ReplayError, diagnose, kept_incidents
from training.inputs import train_batch_spec, train_dataset
from training.job import open_job
from training.step.state import create_train_state
from training.step.train_step import make_train_loop

pytestmark = pytest.mark.slow

EXPLODE = "--set=schedule.learning_rate=1e30"


@pytest.mark.parametrize(("allowed", "made"), [(0, 1), (1, 2)])
def test_a_loop_halts_at_the_step_that_may_not_be_skipped(plain, allowed: int, made: int) -> None:
    # Weights that are fine, and a batch in three whose labels are not finite.
    steps = 5
    random = tiny.Batches.random(steps, 8)
    batches = random.with_shares()
    batches.labels[1:3] = np.nan
    state = create_train_state(
        plain.state.network,
        plain.distribution,
        optimizer=plain.recipe.optimizer,
        with_ema=True,
        with_loss_scale=False,
        skips_allowed=allowed,
    )
    state.from_arrays(plain.initial)
    spec = {**plain.batch_spec, "label": tf.TensorSpec([8, tiny.CLASSES], tf.float32)}
    loop = make_train_loop(state, plain.recipe, plain.distribution, spec)
    iterator = iter(plain.distribution.batches(batches.host_batches, 8))
    after: list[dict[str, np.ndarray]] = []
    for _ in range(steps):
        rows = loop(iterator, tf.constant(1)).numpy()
        after.append(state.to_arrays())
        assert rows.shape == (1, len(plain.recipe.metrics))
    assert after[0]["step"] == 1
    for arrays in after[made - 1 :]:
        assert arrays["step"] == made
        for name, array in arrays.items():
            if name != "step":
                np.testing.assert_array_equal(array, after[0][name], err_msg=name)


def test_a_step_that_is_not_finite_is_diagnosed_kept_and_replayed(
    tmp_path: Path, command: runs.Command
) -> None:
    flags = [*runs.flags(tmp_path, "exploding"), EXPLODE, "--set=schedule.warmup=0 epochs"]
    status, _, err = command(*flags)
    assert status == 1
    line = runs.one_line(err)
    assert "step 1: loss" in line
    assert "learning rate 3.125e+28: not finite, first in the activations of" in line
    (path,) = kept_incidents(str(tmp_path / "exploding"))
    assert f"kept in {path} for --mode=replay" in line

    incident = Incident.load(path)
    assert incident.step == incident.state["step"] == 1
    assert all(np.isfinite(array).all() for array in incident.state.values())
    numbers = ", ".join(str(i) for i in incident.batch["index"])
    assert f"examples {numbers};" in line
    assert CheckpointStore(str(tmp_path / "exploding"), best_metric="top_1").latest() is None

    first = line.partition("first in the ")[2].partition(";")[0]
    status, out, _ = command("--mode=replay", f"--model_dir={tmp_path / 'exploding'}")
    assert status == 0
    assert f"examples {numbers}; first in the {first}" in out
    assert "stem_conv" in out
    assert "classifier" in out


@pytest.mark.parametrize(
    ("name", "replicas", "micro_batches"),
    [("faults_segmentation", 2, 1), ("faults_detection", 1, 2)],
)
def test_a_repeated_step_has_the_loss_of_the_step(
    tmp_path: Path, name: str, replicas: int, micro_batches: int
) -> None:
    overrides = [
        f"model_dir={tmp_path}",
        "stages=[]",
        "batch_norm.group=none",
        f"train.accumulation_steps={micro_batches}",
    ]
    experiment = load_experiment(CONFIG.with_name(f"{name}.yaml"), overrides=overrides)
    job = open_job(experiment, tiny.devices(replicas)).at(0)
    state, noise = make_state(job)
    recipe = make_recipe(job, state.network, noise)
    dataset = train_dataset(job, 0)
    batch = {key: x.numpy() for key, x in next(iter(dataset(0, 1))).items()}
    incident = Incident(0, state.to_arrays(), batch, 0, replicas, job.precision)

    loop = make_train_loop(state, recipe, job.distribution, train_batch_spec(job))
    batches = job.distribution.batches(dataset, job.current_stage.global_batch_size)
    (row,) = loop(iter(batches), tf.constant(1)).numpy()
    assert diagnose(job, incident).loss == pytest.approx(row[recipe.metrics.index("loss")], 1e-5)


def test_skips_that_are_used_up_say_the_step_that_was_one_too_many(
    tmp_path: Path, command: runs.Command
) -> None:
    status, out, err = command(
        *runs.flags(tmp_path, "skipping"),
        EXPLODE,
        "--set=schedule.warmup=0 epochs",
        "--set=train.on_nonfinite=skip",
        "--set=train.max_skipped_steps=2",
        "--set=train.steps_per_call=1",
    )
    assert status == 1
    assert [line for line in out.splitlines() if "skipped" in line] == [
        "step 1: not finite, skipped",
        "step 2: not finite, skipped",
    ]
    assert "step 3: loss" in runs.one_line(err)
    (path,) = kept_incidents(str(tmp_path / "skipping"))
    assert Incident.load(path).step == 3


def test_replay_without_anything_kept_says_so(tmp_path: Path, command: runs.Command) -> None:
    status, _, err = command(*runs.flags(tmp_path, "fine"), "--mode=replay")
    assert status == 1
    assert "nothing to replay" in runs.one_line(err)


def test_a_damaged_file_is_refused_and_never_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "step-00000001.npz"
    np.savez(path, **{"about/step": np.array([{"an": "object"}], dtype=object)})
    with pytest.raises(ReplayError, match="not a step kept for replay"):
        Incident.load(str(path))
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ReplayError, match="not a step kept for replay"):
        Incident.load(str(path))


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    kept = Incident(7, {"step": np.int32(7)}, {"index": np.arange(20)}, 2, 4, "float32")
    path = kept.save(str(tmp_path), host_index=1)
    assert path.endswith("nonfinite/step-00000007-worker-1.npz")
    back = Incident.load(path)
    assert (back.step, back.first_replica, back.num_replicas, back.precision) == (
        7,
        2,
        4,
        "float32",
    )
    assert back.examples() == "examples 0, 1, 2, 3, 4, 5, 6, 7 and 12 more"
