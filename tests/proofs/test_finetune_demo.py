"""The demonstration of fine-tuning: what its four ways differ in, and what it writes of their curves."""

import dataclasses

import numpy as np
from PIL import Image

from input_pipeline.sources.packaged import Picture
from proofs import finetune_demo
from proofs.curves import Curve
from proofs.finetune_demo import PROGRESSIVE, WAYS, draw, experiment_of

CURVES = {
    "one": [Curve((10, 20), (40.0, 60.0), 30.0), Curve((10, 20), (44.0, 64.0), 34.0)],
    "other": [Curve((10, 20), (80.0, 90.5), 50.0)],
}


def test_the_ways_differ_in_weights_and_in_what_is_trained(tmp_path):
    made = {way: experiment_of(way, 1, tmp_path) for way in WAYS}
    trained = {
        way: [stage.set.get("train.trainable", "all") for stage in experiment.stages]
        or [experiment.train.trainable]
        for way, experiment in made.items()
    }
    assert list(trained.values())[:3] == [["all"], ["head"], ["head", "all"]]
    assert trained[PROGRESSIVE] == ["head", "stages>=6", "stages>=4", "all"]
    assert [e.init.weights for e in made.values()] == [None, "wheel", "wheel", "wheel"]
    assert {(e.seed, str(e.train.duration), e.schedule) for e in made.values()} == {
        (1, "200 steps", made[PROGRESSIVE].schedule)
    }
    assert len({e.model_dir for e in made.values()}) == len(WAYS)


def test_the_picture_shows_every_way(tmp_path, monkeypatch):
    patches = [Picture(np.full((8, 8, 3), 100 * n, np.uint8), n, f"{n}") for n in range(2)]
    small = dataclasses.replace(
        finetune_demo.TEXTURES,
        class_names=("dark", "light"),
        read=lambda: {"train": patches, "validation": patches},
    )
    monkeypatch.setattr(finetune_demo, "TEXTURES", small)
    draw(CURVES, tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.size == (800, 500)
