import re
from pathlib import Path

import pytest

from configs.load import FOLDER, config_for_model, load_experiment
from configs.schema import Experiment
from efficientnet.catalog import get_spec, list_models
from efficientnet.detection import get_detector, list_detectors
from training.forecast.forecast import make_forecast
from training.job import model_spec

FILES = sorted(FOLDER.glob("*.yaml"))
IMAGENET, WITHOUT_MINIVAL, IMAGENET_21K = 1_281_167, 1_256_144, 12_720_275

WITHOUT_IMAGENET = (
    "digits",
    "digits_progressive",
    "digits_stages",
    "segmentation_digits",
    "small_images",
    "smoke",
)
COCO_DETECTORS = [name.replace("efficientdet-", "efficientdet_") for name in list_detectors()]
EXAMPLES = {  # of training sets that headers count
    **dict.fromkeys(COCO_DETECTORS, 118_287),
    "efficientdet_voc": 5_717,
    "detection_digits": 2_000,
    "segmentation_digits": 2_000,
    "segmentation_camvid": 367,
    "segmentation_pets": 3_680,
    "segmentation_voc": 10_582,
}

AUTOAUGMENT = [f"efficientnet_b{i}" for i in range(8)]
LONGER = [f"{name}_600epochs" for name in AUTOAUGMENT]
RANDAUGMENT = {  # file: magnitude
    "efficientnet_b5_randaugment": 17,
    "efficientnet_b7_randaugment": 28,
    "efficientnet_b8": 28,
}


def recipe(name: str) -> Experiment:
    return load_experiment(FOLDER / f"{name}.yaml")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_loads_under_its_own_name(path: Path):
    assert load_experiment(path).name == path.stem


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_names_a_published_model(path: Path):
    model = load_experiment(path).model
    assert model.name in list_models()
    spec = get_spec(model.name, width=model.width, depth=model.depth, phi=model.phi)
    assert spec.name == model.name


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_header_says_command_hardware_duration_and_accuracy(path: Path):
    header = [line for line in path.read_text("utf-8").splitlines() if line.startswith("#")]
    assert len(header[0]) > 10
    for word in ("Command", "Hardware", "Duration", "Accuracy"):
        assert any(line.startswith(f"# {word}  ") for line in header), word


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_command_of_a_header_leads_to_its_file(path: Path):
    command = path.read_text("utf-8")
    config = re.search(r"--config=(\S+)", command)
    model = re.search(r"--model=(\S+)", command)
    if config:
        assert FOLDER.parent / config[1] == path
    elif model:
        assert Path(config_for_model(model[1])) == path
    else:
        assert load_experiment() == load_experiment(path)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_steps_of_a_header_are_the_experiments(path: Path):
    experiment = load_experiment(path)
    train, examples = experiment.train, IMAGENET
    if getattr(experiment.data, "holdout_shards", 0) == 20:
        examples = WITHOUT_MINIVAL
    if path.stem.endswith("_21k"):
        examples = IMAGENET_21K
    examples = EXAMPLES.get(path.stem, examples)
    said = re.search(r"= ([\d,]+) steps of (\d+) images", path.read_text("utf-8"))
    if said:
        steps = train.duration.whole_steps(
            num_examples=examples, global_batch_size=train.global_batch_size
        )
        assert said.groups() == (f"{steps:,}", str(train.global_batch_size))
    else:
        assert path.stem in WITHOUT_IMAGENET or train.duration.unit == "steps"


def test_the_shared_recipe_is_the_schemas_defaults():
    assert recipe("imagenet") == Experiment(name="imagenet")


def test_every_recipe_differs_from_the_shared_one_as_its_name_says():
    shared = recipe("imagenet")
    for name in AUTOAUGMENT:
        model = shared.model.model_copy(update={"name": name.replace("_", "-")})
        expected = shared.model_copy(update={"name": name, "model": model})
        assert recipe(name) == expected
    for name in LONGER:
        below = recipe(name.removesuffix("_600epochs"))
        assert str(recipe(name).train.duration) == "600 epochs"
        train = recipe(name).train.model_copy(update={"duration": below.train.duration})
        assert recipe(name).model_copy(update={"name": below.name, "train": train}) == below
    for name, magnitude in RANDAUGMENT.items():
        augment = recipe(name).augment
        assert (augment.policy, augment.layers, augment.magnitude) == ("randaugment", 2, magnitude)
        assert recipe(name).model.name == name.removesuffix("_randaugment").replace("_", "-")


def test_every_published_b_model_has_its_recipe():
    models = list_models("efficientnet-b*")
    assert len(models) == 9
    for name in models:
        experiment = load_experiment(config_for_model(name))
        assert (experiment.model.name, experiment.data.source) == (name, "tfrecord")


@pytest.mark.parametrize(
    "name", ["efficientnet-l2", "nonsense", "../configs/efficientnet_b1", "", "*"]
)
def test_a_model_without_a_file_gets_the_shared_recipe(name):
    assert load_experiment(config_for_model(name)) == recipe("imagenet")


def test_the_default_is_the_digits_at_32_pixels_unmirrored():
    experiment = load_experiment()
    assert (experiment.data.source, experiment.model.image_size) == ("digits", 32)
    assert experiment.model.name == "efficientnet-b0"
    assert not experiment.augment.flip


def test_smoke_is_tiny_and_needs_no_files():
    experiment = recipe("smoke")
    assert experiment.data.source == "synthetic"
    spec = get_spec("efficientnet-b0", width=experiment.model.width, depth=experiment.model.depth)
    assert spec != get_spec("efficientnet-b0")
    assert experiment.train.duration.unit == "steps"
    assert experiment.train.duration.amount <= 20


TRANSFER = {  # file: published network and source
    "cifar10": ("b0", "tfds:cifar10"),
    "cifar100": ("b0", "tfds:cifar100"),
    "flowers": ("b5", "tfds:oxford_flowers102"),
    "cars": ("b3", "tfds:cars196"),
    "pets": ("b4", "tfds:oxford_iiit_pet"),
    "food": ("b4", "tfds:food101"),
    "aircraft": ("b3", "image_folder"),
    "birdsnap": ("b5", "image_folder"),
}
MEAN_PER_CLASS = {"flowers", "pets", "aircraft"}


@pytest.mark.parametrize("name", TRANSFER)
def test_transfer_follows_the_paper_but_for_network_data_and_figure(name: str):
    found, paper = recipe(f"finetune_{name}"), recipe("finetune_paper")
    network, source = TRANSFER[name]
    assert (found.model.name, found.data.source) == (f"efficientnet-{network}", source)
    assert (found.task.best == "mean_per_class") == (name in MEAN_PER_CLASS)
    for section in ("train", "augment", "optimizer", "schedule", "ema", "eval"):
        assert getattr(found, section) == getattr(paper, section), section
    said = re.search(r"for s = (\d+) steps", (FOLDER / f"finetune_{name}.yaml").read_text("utf-8"))
    momentum = max(1 - 10 / int(said[1]), 0.9) if said else 0.9
    assert found.batch_norm.momentum == pytest.approx(momentum, abs=5e-4)


@pytest.mark.parametrize("name", COCO_DETECTORS)
def test_detectors_are_trained_as_published_but_for_their_size_and_length(name: str):
    found, d0 = recipe(name), recipe("efficientdet_d0")
    published = get_detector(name.replace("_", "-"))
    assert (found.task.detector, found.model.name) == (published.name, published.backbone)
    assert found.model.image_size == published.resolution
    assert model_spec(found).survival_probability == published.survival_probability
    long = name in ("efficientdet_d7", "efficientdet_d7x")
    assert str(found.train.duration) == ("600 epochs" if long else "300 epochs")
    assert found.train.model_copy(update={"duration": d0.train.duration}) == d0.train
    for section in ("augment", "optimizer", "schedule", "ema", "eval", "batch_norm"):
        assert getattr(found, section) == getattr(d0, section), section


@pytest.mark.parametrize(
    ("name", "parameters", "multiply_adds"),
    [
        ("efficientdet_d0", 3_880_067, 2.54e9),
        ("efficientdet_d7x", 77_147_166, 410e9),
        ("efficientdet_lite4", 15_130_894, None),
    ],
)
def test_the_plan_of_a_detector_has_the_published_size(name, parameters, multiply_adds):
    plan = make_forecast(recipe(name), None)
    assert plan.parameters == parameters
    if multiply_adds:
        assert plan.stages[0].multiply_adds == pytest.approx(multiply_adds, rel=0.02)
    assert max(plan.rates) == pytest.approx(0.16, rel=1e-3)
    assert plan.rates[-1] == 0.0
