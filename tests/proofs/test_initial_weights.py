"""Runs with initial weights and without: what they differ in, and what is written of them."""

from PIL import Image

from proofs import initial_weights
from proofs.curves import Curve
from proofs.initial_weights import RANDOM, experiment_of, main
from proofs.page import BEGIN, END
from tests import runs

CONFIG = "configs/segmentation_finetune.yaml"


def test_the_ways_differ_in_the_weights_alone(tmp_path):
    random, given = (
        experiment_of(CONFIG, ["data.data_dir=street"], way, 2, tmp_path)
        for way in (RANDOM, "wheel weights")
    )
    assert (random.init.weights, given.init.weights) == (None, "wheel")
    assert random.model_dir == str(tmp_path / "random_weights_2")
    same = {"init": given.init, "model_dir": given.model_dir}
    assert random.model_copy(update=same) == given
    assert (given.data.data_dir, given.seed) == ("street", 2)


def test_the_page_has_a_row_for_each_way_and_a_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        initial_weights,
        "train",
        lambda experiment, distribution, metric: Curve(
            (1, 2), (10.0, 60.0 if experiment.init.weights else 20.0 + experiment.seed), 9.0
        ),
    )
    page = tmp_path / "page.md"
    page.write_text(f"# Page\n{BEGIN}\n{END}\n")
    flags = [f"--config={CONFIG}", "--metric=mean_iou", "--seeds=2", f"--output={page}"]
    assert main([*flags, f"--folder={tmp_path}"]) == 0
    assert "| random weights | 20.0 21.0 | 20.5 ± 0.7 | 9 s |" in page.read_text()
    assert "| wheel weights | 60.0 60.0 | 60.0 ± 0.0 | 9 s |" in capsys.readouterr().out
    with Image.open(page.with_suffix(".png")) as picture:
        assert picture.size == (800, 400)


def test_a_recipe_without_weights_is_one_line(capsys):
    assert main(["--config=configs/digits.yaml", "--metric=top_1"]) == 2
    assert "has no init.weights" in runs.one_line(capsys.readouterr().err)
