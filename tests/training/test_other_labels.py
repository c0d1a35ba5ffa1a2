"""--mode=eval of a run on images that are labelled from elsewhere."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from configs.load import load_experiment
from input_pipeline.errors import DatasetError
from input_pipeline.sources.dataset_info import DatasetInfo, SplitInfo, write_dataset_info
from proofs.faults import NETWORK
from run_folder.checkpoints import CheckpointStore
from run_folder.experiment import run_experiment_file, save_run_experiment
from system.errors import UsageError
from tests import runs
from training.build import make_state
from training.devices.distribution import connect
from training.job import make_job
from training.loop import evaluate_run

pytestmark = pytest.mark.slow

NAMES = ("cat", "dog", "emu")
COUNTS = {"0": 3, "emu": 4}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with random weights on data that are gone, and a folder of seven images of noise."""
    folder = tmp_path_factory.mktemp("run")
    settings = [f"model.name={NETWORK}", "model.width=null", "model.depth=null"]
    settings += ["model.image_size=32", "data.source=image_folder"]
    settings += ["data.data_dir=gone", "ema.decay=0", f"model_dir={folder}"]
    experiment = load_experiment("configs/smoke.yaml", overrides=settings)
    splits = {"train": SplitInfo(9, class_counts=(3, 3, 3)), "validation": SplitInfo(1)}
    info = DatasetInfo("animals", 3, NAMES, splits)
    job = make_job(experiment, info, connect("cpu"))
    state, _ = make_state(job)
    save_run_experiment(job.experiment, str(folder))
    write_dataset_info(info, str(folder))
    CheckpointStore(str(folder), best_metric="top_1").save(4, state.to_arrays(), {"top_1": 0.5})
    random = np.random.default_rng(0)
    for name, count in COUNTS.items():
        (folder / "new" / name).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 256, [32, 32, 3]).astype(np.uint8)
            file = folder / "new" / name / f"{name}_{number}.png"
            file.write_bytes(tf.io.encode_png(pixels).numpy())
    return folder


def evaluated(run: Path, labels: str, *settings: str):
    overrides = [f"model_dir={run}", f"data.data_dir={run}/new", f"eval.labels={labels}"]
    file = run_experiment_file(str(run))
    return evaluate_run(load_experiment(file, overrides=[*overrides, *settings]), connect("cpu"))


def test_a_run_is_evaluated_on_folders_and_on_several_right_labels(run: Path) -> None:
    step, by_folder, names = evaluated(run, "folders", "eval.global_batch_size=4")
    assert (step, names, by_folder.num_examples) == ("step 4", NAMES, 7)
    assert by_folder.sums["class_examples"].tolist() == [3, 0, 4]

    real = run / "real.json"
    given = {
        file.name: [{"0": 0}.get(file.parent.name, file.parent.name)]
        for file in run.glob("new/*/*.png")
    }
    real.write_text(json.dumps(given))
    figures = evaluated(run, str(real)).evaluation.figures
    assert figures.keys() == {"top_1", "top_5", "cross_entropy"}
    for name, figure in figures.items():
        np.testing.assert_allclose(figure, by_folder.figures[name], rtol=1e-5, err_msg=name)

    # Every class is right for the first images, and the others have no label.
    real.write_text(json.dumps({name: [0, 1, "emu"] if "emu" in name else [] for name in given}))
    measured = evaluated(run, str(real)).evaluation
    assert measured.num_examples == COUNTS["emu"]
    assert measured.figures["top_1"] == 1.0
    np.testing.assert_allclose(measured.figures["cross_entropy"], 0.0, atol=1e-6)


def test_mistakes_are_one_line(run: Path, command: runs.Command) -> None:
    with pytest.raises(UsageError, match=r"labels the images in --data_dir: give the folder"):
        evaluated(run, "folders", "data.data_dir=null")
    (run / "real.json").write_text('{"emu_0.png": "nobody"}')
    with pytest.raises(DatasetError, match=r"'nobody' is no class of animals"):
        evaluated(run, f"{run}/real.json")
    flags = (f"--model_dir={run}", "--set=eval.labels=folders")
    status, _, err = command("--mode=export", *flags)
    assert status == 2
    assert "eval.labels=folders has no effect with --mode=export: it is for eval" in err
