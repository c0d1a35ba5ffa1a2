"""A small EfficientNetV2 by progressive learning: stopped, exported, served and replayed."""

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import yaml

from configs.load import load_experiment, to_yaml
from efficientnet import normalize_images
from proofs.faults import CONFIG, Life
from serving import predict
from serving.export import export_run, load_trained_network
from serving.network import build_inference_network
from serving.predictor import open_predictor
from serving.saved_model import crop_all
from tests import runs
from tests.training.test_preemption import signal_at
from training.diagnosis.nonfinite import kept_incidents

pytestmark = pytest.mark.slow

V2 = CONFIG.with_name("faults_v2.yaml")
STAGES, STEPS = 4, 3  # steps of each stage
DURATION = f"train.duration={4 * STAGES * STEPS} examples"


def flags(model_dir: Path) -> list[str]:
    settings = [f"--set={DURATION}", "--set=export.formats=[]"]
    return [f"--config={V2}", *settings, f"--model_dir={model_dir}"]


@pytest.fixture
def undisturbed(folder: Path, command: runs.Command) -> Path:
    """A run that was left alone."""
    if not (folder / "undisturbed").exists():
        status, _, err = command(*flags(folder / "undisturbed"))
        assert status == 0, err
    return folder / "undisturbed"


def test_a_run_stopped_in_two_of_its_stages_ends_with_the_same_bits(
    folder: Path, undisturbed: Path, command: runs.Command
) -> None:
    for stage in (1, 3):  # the others, and the steps between two: proofs/results/faults.md
        step = STEPS * stage + 2
        with pytest.MonkeyPatch.context() as monkeypatch:
            signal_at(monkeypatch, signal.SIGTERM, step)
            status, _, err = command(*flags(folder / "stopped"))
        assert status == 75, err
        assert f"stopped at step {step} of {STAGES * STEPS}" in err
    status, _, err = command(*flags(folder / "stopped"))
    assert status == 0, err
    runs.assert_same_end(folder / "stopped", undisturbed)


@pytest.mark.filterwarnings("default")  # converters use what other packages deprecated
def test_every_export_answers_as_the_live_model_and_is_served(
    undisturbed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    for package in ("ai_edge_litert", "tf2onnx", "onnxruntime"):
        pytest.importorskip(package)
    monkeypatch.setattr("serving.export.VARIANTS", ("float32", "int8"))  # the others cost time
    formats = ["export.formats=[saved_model, tflite, onnx]"]
    model_dir = str(shutil.copytree(undisturbed, tmp_path / "copy"))
    experiment = load_experiment(undisturbed / "experiment.yaml", overrides=formats)
    paths = export_run(model_dir, experiment)

    trained = load_trained_network(model_dir, None)
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, [20 + 9 * n, 50, 3]).astype(np.uint8) for n in range(6)]
    images = [tf.io.encode_png(picture).numpy() for picture in pictures]
    pixels, valid = crop_all(tf.constant(images), trained.view)
    assert valid.numpy().all()
    spec = trained.spec
    inputs = normalize_images(pixels["image"], spec.mean_rgb, spec.stddev_rgb)
    expected = tf.nn.softmax(build_inference_network(**trained.values())(inputs)).numpy()
    assert np.ptp(expected, axis=0).max() > 1e-3  # the answers do depend on the image

    for name, path in paths.items():
        found = open_predictor(path).predict(images).values
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=name)
    quantized = open_predictor(paths["tflite"], "int8").predict(images).values
    assert np.corrcoef(np.ravel(quantized), np.ravel(expected))[0, 1] > 0.9

    file = tmp_path / "image.png"
    file.write_bytes(images[0])
    for name in paths:
        flags = [f"--model_dir={model_dir}", f"--format={name}", "--json", "--top=10", str(file)]
        assert predict.main(flags) == 0
        best = json.loads(capsys.readouterr().out)["predictions"]
        served = [each["probability"] for each in sorted(best, key=lambda each: each["class"])]
        np.testing.assert_allclose(served, expected[0], atol=1e-5, err_msg=name)


def test_a_step_of_the_third_stage_that_is_not_finite_is_replayed(
    tmp_path: Path, command: runs.Command
) -> None:
    """Of two workers; tests/training/test_stages.py has a single process."""
    wild = yaml.safe_load(to_yaml(load_experiment(V2, overrides=[DURATION])))
    wild["stages"][2]["set"] |= {"schedule.learning_rate": 1e30, "schedule.warmup": "0 steps"}
    (tmp_path / "wild.yaml").write_text(yaml.safe_dump(wild))
    arguments = [f"--config={tmp_path}/wild.yaml", f"--model_dir={tmp_path}/run"]
    life = Life([*arguments, "--strategy=multi_worker"], workers=2)
    assert life.end() == [1, 1], life.output()
    printed = life.output()
    step = 2 * STEPS + 1  # the first one that reads what the third stage has made
    assert f"step {step}: loss" in printed
    assert len(kept_incidents(f"{tmp_path}/run")) == 2
    status, out, err = command("--mode=replay", f"--model_dir={tmp_path}/run")
    assert status == 0, err
    assert f"step {step}: largest magnitude, or how many values are not finite" in out
