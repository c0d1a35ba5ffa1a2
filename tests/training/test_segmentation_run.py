"""A run on masks, from a folder to predictions, with the command line."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from configs.model_file import write_model_file
from efficientnet import get_spec, to_plain
from input_pipeline.images.label_map import IGNORED, decode_label_map
from serving import predict
from serving.export import load_trained_network
from serving.model_card import read_model_card
from serving.report.mistakes import find_mistakes
from tests import runs

NAMES = ("ground", "sky", "tree")
COUNTS = {"train": 16, "val": 6}
SIZE = (24, 36)
EXPERIMENT = """
model: {name: two_blocks.yaml, image_size: [16, 24]}
task: {name: segmentation, decoder_filters: [8, 6], dice: 1.0, class_weights: [1.0, 2.0, 1.0]}
data: {source: mask_folder, data_dir: images}
augment: {policy: randaugment, magnitude: 3, quirks: false, framing: scale_jitter, resize: bilinear}
train: {global_batch_size: 8, duration: 6 steps, steps_per_call: 2}
schedule: {learning_rate: 0.05, warmup: 0 steps}
ema: {decay: 0.5}
eval: {every: 2 steps, framing: letterbox, at: original, max_size: [30, 40]}
checkpoint: {every: 2 steps, keep: 3}
export: {formats: [saved_model, tflite]}
"""


def write_images(folder: Path) -> None:
    """Two halves of the colours of their classes, with a frame that does not count."""
    random = np.random.default_rng(0)
    for split, count in COUNTS.items():
        for kind in ("images", "masks"):
            (folder / split / kind).mkdir(parents=True)
        for number in range(count):
            mask = np.zeros(SIZE, np.uint8)
            cut = random.integers(8, 28)
            mask[:, :cut], mask[:, cut:] = random.permutation(3)[:2]
            pixels = 80 * mask[..., np.newaxis] + random.integers(0, 60, [*SIZE, 3])
            mask[:2] = IGNORED
            name = f"{number:02}"
            image = tf.io.encode_png(pixels.astype(np.uint8)).numpy()
            (folder / split / "images" / f"{name}.png").write_bytes(image)
            content = tf.io.encode_png(mask[..., np.newaxis]).numpy()
            (folder / split / "masks" / f"{name}.png").write_bytes(content)
    (folder / "classes.txt").write_text("\n".join(NAMES))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with images, masks and an experiment, which is the current one."""
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "images")
    b0 = get_spec("efficientnet-b0", width=0.25)
    write_model_file("two_blocks.yaml", to_plain(dataclasses.replace(b0, blocks=b0.blocks[:2])))
    Path("scenes.yaml").write_text(EXPERIMENT)
    return tmp_path


@pytest.mark.slow
def test_a_run_on_masks_trains_evaluates_exports_and_predicts(
    here: Path, capsys: pytest.CaptureFixture
) -> None:
    command = runs.in_this_process(capsys)
    status, out = runs.on_devices(
        2, "--config=scenes.yaml", "--strategy=mirrored", "--model_dir=run"
    )
    assert status == 0, out
    assert "mean IoU" in out
    assert "predictions" in out
    assert "Left out" not in Path("run/report.html").read_text()
    picture = tf.io.decode_png(Path("run/predictions.png").read_bytes())
    assert picture.shape == (COUNTS["val"] * 20, 3 * 28, 3)
    worst = find_mistakes(load_trained_network("run", None)).worst
    assert [part.shape for part in worst[0].pictures] == [(16, 24, 3)] * 3

    status, out, err = command("--mode=eval", "--model_dir=run", "--strategy=cpu")
    assert status == 0, err
    assert "sky" in out  # the table of the classes
    card = read_model_card(str(next(Path("run/export/saved_model").iterdir())))
    assert (card.answers, card.class_names) == ("class_maps", NAMES)

    assert predict.main(["--model_dir=run", "--json", "images/val/images"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    counts = np.zeros([3, 3])
    for line in lines:
        found = decode_label_map(tf.constant(Path(line["mask"]).read_bytes()))[0].numpy()
        mask = Path(line["file"].replace("/images/0", "/masks/0"))
        truth = decode_label_map(tf.constant(mask.read_bytes()))[0].numpy()
        valid = truth != IGNORED
        np.add.at(counts, (truth[valid], found[valid]), 1)
    both = np.diag(counts)
    union = counts.sum(0) + counts.sum(1) - both
    assert card.metrics["mean_iou"] == pytest.approx(np.mean(both / union), abs=2e-3)
    for line in lines:
        for path in (line["mask"], line["overlay"]):
            Path(path).unlink()
    arguments = ["--model_dir=run", "--json", "--format=tflite", "images/val/images"]
    assert predict.main(arguments) == 0


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("augment.mixup_alpha=0.2", "set augment.mixup_alpha=0 and augment.cutmix_alpha=0"),
        ("model.dropout=0.1", "model.dropout=0.1 has no effect with task.name=segmentation"),
        ("train.accumulation_steps=2", "task.dice is a ratio of sums over the whole batch"),
        ("eval.framing=center_crop", "eval.framing=center_crop cuts some off"),
        ("eval.max_size=null", "the size of the largest image is needed"),
        pytest.param("eval.max_size=20", "larger than eval.max_size=20", marks=pytest.mark.slow),
        ("task.class_weights=[1.0]", "task.class_weights: 1 numbers for 3 classes"),
        ("task.decoder_filters=[8]", "the decoder has filters [8]"),
        ("task.focal_gamma=1.0", "task.focal_gamma=1 has no effect with task.focal=0"),
        ("data.source=image_folder", "data source image_folder holds classes of whole images"),
        (
            "task.name=classification",
            "eval.at=original has no effect with task.name=classification",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(here: Path, capsys, setting: str, expected: str) -> None:
    command = runs.in_this_process(capsys)
    flags = ["--config=scenes.yaml", "--strategy=cpu", "--model_dir=run", f"--set={setting}"]
    if "max_size=20" in setting:
        flags += ["--set=eval.every=2 steps", "--set=augment.policy=none"]
    status, _, err = command(*flags)
    assert status != 0
    assert expected in runs.one_line("\n".join(err.splitlines()[-1:]))
