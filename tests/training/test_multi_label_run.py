"""A run on images of several classes, from a CSV list to predictions."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import average_precision_score

from configs.model_file import write_model_file
from efficientnet import get_spec, to_plain
from proofs.faults import rows
from serving import predict
from serving.model_card import read_model_card
from tests import runs

pytestmark = pytest.mark.slow

CLASSES = ("blue", "green", "red")
COUNTS = {"train": 16, "validation": 10}
EXPERIMENT = """
model: {name: two_blocks.yaml, image_size: 16}
task: {name: multi_label, max_labels: 4}
data: {source: csv, data_dir: images}
augment: {policy: none, mixup_alpha: 0.2}
train: {global_batch_size: 8, duration: 4 steps, steps_per_call: 2}
schedule: {learning_rate: 0.1, warmup: 0 steps}
ema: {decay: 0.5}
eval: {every: 2 steps, crop_padding: 0}
export: {formats: [saved_model, tflite]}
"""


def write_lists(folder: Path) -> dict[str, list[list[str]]]:
    """Images of noise in which each listed colour is a stripe; return the labels of each split."""
    random = np.random.default_rng(0)
    labels: dict[str, list[list[str]]] = {}
    for split, count in COUNTS.items():
        lines = ["path,labels"]
        labels[split] = []
        for number in range(count):
            pixels = random.integers(0, 60, [16, 16, 3])
            chosen = [name for place, name in enumerate(CLASSES) if number >> place & 1]
            for name in chosen:
                place = CLASSES.index(name)
                pixels[5 * place : 5 * place + 5, :, place] += 180
            path = folder / split / f"{number:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(tf.io.encode_png(pixels.astype(np.uint8)).numpy())
            lines.append(f"{split}/{number:02}.png,{';'.join(chosen)}")
            labels[split].append(chosen)
        (folder / f"{split}.csv").write_text("\n".join(lines))
    return labels


def test_a_multi_label_run_trains_evaluates_exports_and_predicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    labels = write_lists(tmp_path / "images")
    b0 = get_spec("efficientnet-b0", width=0.25)
    write_model_file("two_blocks.yaml", to_plain(dataclasses.replace(b0, blocks=b0.blocks[:2])))
    Path("colours.yaml").write_text(EXPERIMENT)
    command = runs.in_this_process(capsys)

    # Four replicas, and a last batch with room for six more images.
    flags = ["--config=colours.yaml", "--strategy=mirrored", "--model_dir=run"]
    status, out = runs.on_devices(2, *flags)
    assert status == 0, out
    assert "mean average precision" in out
    assert "Left out" not in Path("run/report.html").read_text()
    status, out, err = command("--mode=eval", "--model_dir=run", "--strategy=cpu")
    assert status == 0, err

    # One evaluation without a better one may end it: the run's best checkpoint is known by its own figure.
    flags = ["--mode=eval_loop", "--model_dir=run", "--strategy=cpu", "--set=train.patience=1"]
    status, out, err = command(*flags)
    assert status == 0, err
    assert [row["step"] for row in rows(Path("run/eval_loop"))] == [2, 4]

    (export,) = (tmp_path / "run" / "export" / "saved_model").iterdir()
    card = read_model_card(str(export))
    assert (card.activation, card.class_names) == ("sigmoid", CLASSES)
    arguments = ["--model_dir=run", "--json", "--top=3", "images/validation"]
    assert predict.main(arguments) == 0
    served = probabilities(capsys.readouterr().out)
    hot = np.array([[name in chosen for name in CLASSES] for chosen in labels["validation"]])
    each = [average_precision_score(hot[:, n], served[:, n]) for n in range(len(CLASSES))]
    assert card.metrics["mean_average_precision"] == pytest.approx(np.mean(each), abs=1e-6)
    assert not np.allclose(served.sum(axis=1), 1.0)
    assert predict.main([*arguments, "--format=tflite"]) == 0
    np.testing.assert_allclose(probabilities(capsys.readouterr().out), served, atol=1e-3)


def probabilities(lines: str) -> np.ndarray:
    """Return [images, classes] from the output of serving.predict --json."""
    answers = [json.loads(line)["predictions"] for line in lines.splitlines()]
    ordered = [sorted(answer, key=lambda best: best["class"]) for answer in answers]
    return np.array([[best["probability"] for best in answer] for answer in ordered])
