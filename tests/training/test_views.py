"""What the network sees of an image, as an experiment asks for it."""

import os
from pathlib import Path

import numpy as np
import pytest

from configs.load import IMAGENET, ConfigError, load_experiment
from configs.model_file import write_model_file
from efficientnet import get_spec, to_plain
from input_pipeline.images.framing import CenterCrop, Letterbox, RandomCrop, ScaleJitter, Squash
from serving.export import export_run
from serving.model_card import Preprocessing
from serving.predictor import open_predictor
from training.devices.distribution import connect
from training.inputs import train_view
from training.job import describe_sizes, eval_view, model_spec, open_source
from training.loop import train_and_evaluate


@pytest.mark.parametrize(
    ("changes", "trained", "evaluated"),
    [
        ([], 224, 224),
        (["model.image_size=32"], 32, 32),
        (["model.image_size=[32, 48]"], (32, 48), (32, 48)),
        (["model.image_size=32", "eval.image_size=[40, 56]"], 32, (40, 56)),
    ],
)
def test_evaluation_has_its_own_size_or_that_of_training(changes, trained, evaluated) -> None:
    experiment = load_experiment(IMAGENET, overrides=changes)
    spec = model_spec(experiment)
    assert (train_view(experiment, spec).size, eval_view(experiment, spec).size) == (
        trained,
        evaluated,
    )


def test_a_network_with_a_size_for_evaluation_is_evaluated_at_it(tmp_path: Path) -> None:
    path = str(tmp_path / "v2.yaml")
    plain = {**to_plain(get_spec("efficientnet-b1")), "resolution": 300, "eval_resolution": 384}
    write_model_file(path, plain)
    experiment = load_experiment(IMAGENET, values={"model.name": path})
    assert eval_view(experiment, model_spec(experiment)).size == 384
    assert describe_sizes(experiment, model_spec(experiment)) == "300 px, evaluated at 384 px"
    # As saved by a run, whose experiment holds the size.
    held = load_experiment(
        IMAGENET, overrides=["model.image_size=300"], values={"model.name": path}
    )
    assert eval_view(held, model_spec(held)).size == 384


@pytest.mark.parametrize(
    ("changes", "framing", "resize"),
    [
        ([], CenterCrop(), "bicubic"),
        (["eval.crop_padding=32"], CenterCrop(32), "bicubic"),
        (["eval.framing=squash", "eval.resize=bilinear"], Squash(), "bilinear"),
        (["augment.resize=bilinear", "eval.framing=letterbox"], Letterbox(), "bilinear"),
        (["eval.framing=letterbox", "eval.alignment=top_left"], Letterbox("top_left"), "bicubic"),
    ],
)
def test_evaluation_has_the_framing_that_the_experiment_names(changes, framing, resize) -> None:
    experiment = load_experiment(IMAGENET, overrides=changes)
    view = eval_view(experiment, model_spec(experiment))
    assert (view.framing, view.resize) == (framing, resize)
    assert Preprocessing.of(view, (0.0,) * 3, (1.0,) * 3).view() == view


@pytest.mark.parametrize(
    ("changes", "framing"),
    [
        ([], RandomCrop()),
        (["augment.crop_area=[0.5, 1]"], RandomCrop((0.5, 1.0))),
        (["augment.framing=squash"], Squash()),
        (["augment.framing=scale_jitter"], ScaleJitter()),
        (
            ["augment.framing=scale_jitter", "augment.scale_range=[0.8, 1.2]"],
            ScaleJitter((0.8, 1.2)),
        ),
    ],
)
def test_training_has_the_framing_that_the_experiment_names(changes, framing) -> None:
    experiment = load_experiment(IMAGENET, overrides=changes)
    assert train_view(experiment, model_spec(experiment)).framing == framing


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ["augment.framing=squash", "augment.crop_area=[0.5, 1]"],
            "augment.crop_area=[0.5, 1.0] has no effect with augment.framing=squash",
        ),
        (["augment.scale_range=[0.5, 1]"], "it is for scale_jitter"),
        (["augment.framing=scale_jitter", "augment.mixup_alpha=0.2"], "would mix images"),
        (
            ["eval.framing=squash", "eval.crop_padding=32"],
            "eval.crop_padding=32 has no effect with eval.framing=squash",
        ),
        (["model.image_size=4"], "must be pixels, at least 8, or [height, width]"),
    ],
)
def test_a_setting_of_another_framing_is_refused(changes, message) -> None:
    with pytest.raises(ConfigError) as error:
        load_experiment(IMAGENET, overrides=changes)
    assert message in str(error.value)


@pytest.mark.slow
def test_padded_rectangles_train_evaluate_and_are_served(tmp_path: Path) -> None:
    changes = [
        f"model_dir={tmp_path}",
        *("model.width=0.1", "model.depth=0.1", "model.image_size=[24, 40]"),
        *("augment.framing=scale_jitter", "augment.policy=randaugment"),
        *("eval.framing=letterbox", "eval.image_size=[40, 32]"),
        *("train.duration=2 steps", "train.steps_per_call=1", "schedule.warmup=0 steps"),
        *("eval.every=2 steps", "checkpoint.every=2 steps", "export.formats=[saved_model, onnx]"),
    ]
    experiment = load_experiment("configs/smoke.yaml", overrides=changes)
    train_and_evaluate(experiment, connect("cpu"))
    exports = export_run(str(tmp_path))
    assert {os.path.basename(os.path.dirname(path)) for path in exports.values()} == {
        "saved_model",
        "onnx",
    }
    # Synthetic images are as wide as those of training: padded above and below.
    examples = open_source(experiment, model_spec(experiment)).examples("train")
    images = [examples.read(n)[0].numpy() for n in range(3)]
    answers = [open_predictor(path).predict(images) for path in exports.values()]
    assert all(answer.valid.all() for answer in answers)
    np.testing.assert_allclose(answers[0].values, answers[1].values, atol=1e-5)
    card = open_predictor(exports["onnx"]).card
    assert card.preprocessing.view() == eval_view(experiment, model_spec(experiment))
    assert card.preprocessing.image_size == (40, 32)
