"""A folder of photographs and a file of weights are all that the fine-tuning recipes need."""

import numpy as np
import pytest
import tensorflow as tf

from configs.load import FOLDER, load_experiment
from efficientnet import complexity
from efficientnet.weights import write_weights_file
from efficientnet.weights.expectations import Expectations
from proofs.faults import NETWORK
from run_folder.checkpoints import CheckpointStore
from tests.runs import run_here
from training.job import model_spec

CLASSES = ("cat", "dog", "owl")
HALF = ((127.5,) * 3, (127.5,) * 3)
SHORT = (
    "train.duration=20 steps",
    "train.steps_per_call=2",
    "train.global_batch_size=4",
    "export.formats=[]",
    "export.report=false",
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file with the weights of a network of 5 classes that expects images of 24 pixels."""
    spec = model_spec(load_experiment(values={"model.name": str(NETWORK)}))
    random = np.random.default_rng(0)
    shapes = complexity(spec, num_classes=5).variable_shapes
    arrays = {
        path: random.uniform(0.5, 1.0, shape).astype(np.float32) for path, shape in shapes.items()
    }
    file = tmp_path_factory.mktemp("weights") / "foreign.weights.h5"
    write_weights_file(
        file, spec, arrays, Expectations("a test", normalization=HALF, image_size=24)
    )
    return file, arrays


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for name in CLASSES:
        (folder / name).mkdir()
        for number in range(10):
            pixels = random.integers(0, 256, (40, 30, 3), np.uint8)
            (folder / name / f"{number}.jpg").write_bytes(tf.io.encode_jpeg(pixels).numpy())
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["finetune", "linear_probe"])
def test_classes_size_and_normalisation_follow_from_data_and_weights(
    recipe, weights, photos, tmp_path, capsys
):
    file, start = weights
    arguments = [f"--config={FOLDER / f'{recipe}.yaml'}", f"--data_dir={photos}"]
    arguments += [f"--model={NETWORK}", f"--model_dir={tmp_path}", f"--set=init.weights={file}"]
    assert run_here(*arguments, *(f"--set={setting}" for setting in SHORT)) == 0
    experiment = load_experiment(tmp_path / "experiment.yaml")
    assert experiment.model.num_classes == 3
    assert experiment.model.normalization == HALF
    assert experiment.model.image_size == 24
    said = capsys.readouterr().out
    assert "its classifier of 5 classes was dropped, the model has 3" in said.replace("\n", " ")
    last = CheckpointStore(str(tmp_path), best_metric="top_1").latest()
    moved = not np.array_equal(last.read()["network/stem_conv/kernel"], start["stem_conv/kernel"])
    assert moved == (recipe != "linear_probe")


def test_the_progressive_recipe_unfreezes_from_the_last_stage_down():
    stages = load_experiment(FOLDER / "finetune_progressive.yaml").stages
    rules = [stage.set.get("train.trainable", "all") for stage in stages]
    assert rules == ["head", "stages>=6", "stages>=4", "all"]


@pytest.mark.parametrize(
    "recipe", ["finetune", "finetune_progressive", "finetune_paper", "linear_probe"]
)
def test_recipes_leave_open_what_the_weights_expect(recipe):
    experiment = load_experiment(FOLDER / f"{recipe}.yaml")
    model, view = experiment.model, experiment.eval
    assert (model.normalization, model.image_size, model.num_classes) == (None, None, None)
    assert (view.image_size, view.resize, view.crop_padding) == (None, None, None)
    assert experiment.batch_norm.epsilon is None
