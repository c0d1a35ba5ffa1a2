"""Progressive learning as stages, as the published code and as the paper have it."""

from pathlib import Path

import numpy as np
import pytest

from configs.load import ConfigError, load_experiment, to_yaml
from configs.schema import Experiment
from efficientnet import get_spec
from training.plan import make_plan

TRAIN, TRAINVAL = 1_256_144, 1_281_167
# Size, RandAugment's magnitude, alpha of mixup and of cutmix in the last stage.
LAST = {
    "s": (300, 10, 0.0),
    "m": (384, 15, 0.2),
    "l": (384, 20, 0.5),
    "xl": (384, 20, 0.5),
    "b0": (192, None, 0.0),
    "b1": (192, None, 0.0),
    "b2": (208, None, 0.0),
    "b3": (240, None, 0.0),
}


def experiment(model: str, rule: str = "code") -> Experiment:
    size, magnitude, alpha = LAST[model]
    fields = [f"rule: {rule}", f"image_size: [128, {size}]"]
    fields += [f"{kind}_alpha: [0, {alpha}]" for kind in ("mixup", "cutmix")]
    policy = "autoaugment" if magnitude is None else "randaugment"
    fields += [] if magnitude is None else [f"magnitude: [5, {magnitude}]"]
    return load_experiment(
        "configs/imagenet.yaml",
        overrides=[f"augment.policy={policy}", f"progressive={{{', '.join(fields)}}}"],
    )


@pytest.mark.parametrize("images", ["train", "trainval"])
@pytest.mark.parametrize("model", LAST)
def test_stages_are_those_of_the_published_code(goldens: Path, model: str, images: str) -> None:
    golden = np.load(goldens / "v2_schedules.npz")
    columns = list(golden["progressive/columns"])
    expected = {
        name: golden[f"progressive/{images}/{model}"][:, columns.index(name)] for name in columns
    }
    plan = make_plan(experiment(model), TRAIN if images == "train" else TRAINVAL)
    settings = [stage.experiment for stage in plan.stages]
    assert [stage.end_step for stage in plan.stages] == list(expected["steps_until"])
    assert [each.model.image_size for each in settings] == list(expected["image_size"])
    assert [each.train.global_batch_size for each in settings] == list(expected["batch"])
    for name in ("mixup_alpha", "cutmix_alpha"):
        found = [getattr(each.augment, name) for each in settings]
        np.testing.assert_allclose(found, expected[name], rtol=1e-6, atol=1e-9)
    if LAST[model][1]:
        found = [each.augment.magnitude for each in settings]
        np.testing.assert_allclose(found, expected["randaug_magnitude"], rtol=1e-6)


def test_by_the_papers_rule_the_first_stage_has_the_first_size() -> None:
    stages = experiment("s", "paper").stages
    assert [stage.set["model.image_size"] for stage in stages] == [128, 185, 242, 300]
    assert [stage.set["augment.magnitude"] for stage in stages] == pytest.approx(
        [5, 5 + 5 / 3, 5 + 10 / 3, 10]
    )


def test_a_run_keeps_the_stages_and_not_the_rule(tmp_path: Path) -> None:
    read = experiment("s")
    (tmp_path / "experiment.yaml").write_text(to_yaml(read))
    again = load_experiment(tmp_path / "experiment.yaml")
    assert again == read
    assert again.progressive is None
    assert len(again.stages) == 4


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("progressive={image_size: [128, 300], magnitude: [5, 10]}", "magnitude=5.0 has no effect"),
        ("progressive={image_size: [128]}", "progressive.image_size must be"),
        (
            "progressive={stages: 1, image_size: [8, 16]}",
            "progressive.stages must be a whole number",
        ),
        ("progressive={image_size: [8, 16], sizes: 3}", "unknown key progressive.sizes"),
        (
            "progressive={stages: 3}",
            "progressive has no effect without one of image_size, magnitude",
        ),
        (
            "progressive={rule: paper, dropout: [0.1, 0.2]}",
            "progressive.rule=paper has no effect without progressive.image_size",
        ),
    ],
)
def test_a_growth_that_cannot_be_is_one_line(given: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        load_experiment("configs/imagenet.yaml", overrides=[given])
    assert len(str(raised.value).splitlines()) == 1
    assert str(raised.value).startswith("--set progressive=")


def test_progressive_beside_stages_is_refused() -> None:
    with pytest.raises(ConfigError, match="give one of the two"):
        load_experiment(overrides=["progressive={image_size: [8, 16]}", "stages=[{}]"])


def stages_of(recipe: str, examples: int) -> dict[str, list[float]]:
    """The stages of a recipe, in the columns of the published code."""
    stages = make_plan(load_experiment(f"configs/{recipe}.yaml"), examples).stages
    settings = [stage.experiment for stage in stages]
    return {
        "image_size": [e.model.image_size or get_spec(e.model.name).resolution for e in settings],
        "steps_until": [stage.end_step for stage in stages],
        "mixup_alpha": [e.augment.mixup_alpha for e in settings],
        "cutmix_alpha": [e.augment.cutmix_alpha for e in settings],
        "batch": [e.train.global_batch_size for e in settings],
        "dropout": [
            get_spec(e.model.name).dropout if e.model.dropout is None else e.model.dropout
            for e in settings
        ],
    }


@pytest.mark.parametrize(
    ("recipe", "key", "examples"),
    [
        *((f"efficientnetv2_{m}", f"progressive/train/{m}", TRAIN) for m in LAST if m != "xl"),
        *(
            (f"efficientnetv2_{m}_21k", f"single_stage/ImageNet21k/{m}", 12_720_275)
            for m in ("s", "m", "l", "xl")
        ),
        *(
            (f"efficientnetv2_{m}_ft1k", f"single_stage/ImagenetFt/{m}", TRAIN)
            for m in ("s", "m", "l", "xl")
        ),
    ],
)
def test_recipes_are_what_the_published_code_computes(
    goldens: Path, recipe: str, key: str, examples: int
) -> None:
    golden = np.load(goldens / "v2_schedules.npz")
    columns = list(golden["progressive/columns"])
    for name, found in stages_of(recipe, examples).items():
        expected = golden[key][:, columns.index(name)]
        # Published dropout of 1e-6 is none here.
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=2e-6, err_msg=name)
