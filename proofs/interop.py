"""Compare networks and weight files with timm, another implementation in another framework.

    python -m proofs.interop [--output=proofs/results/interop.md]

needs requirements-interop.txt. For each of PAIRS a network of timm with random weights is saved, imported and
run on the same images by both; then its weights are exported back and compared bit for bit. For all other
networks the names and shapes of timm's tensors are compared with those that an export has. The exit status
is 1 if anything differs.
"""

import dataclasses
import importlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from system.command import Parser, command
from system.conditions import conditions
from system.errors import UsageError
from system.files import write_text
from system.tensorflow_log import quiet_tensorflow

if __name__ == "__main__":
    quiet_tensorflow()

from efficientnet import build_model, complexity, get_spec, list_models, vary
from efficientnet.spec import ModelSpec, Padding
from efficientnet.weights.keras_file import assign_weights
from efficientnet.weights.open import open_weights
from efficientnet.weights.timm import timm_architecture, to_timm

CLASSES, SIZE, IMAGES = 10, 64, 4
BOUND = 1e-4  # of the largest logit
FILE = "model.safetensors"
TENSORFLOW = (
    *("efficientnet-b0", "efficientnet-b1", "efficientnet-b2", "efficientnet-b3"),
    *("efficientnet-lite0", "efficientnetv2-b0", "efficientnetv2-s"),
)
# Names of networks with the padding of timm's variant.
PAIRS: tuple[tuple[str, Padding], ...] = (
    *((name, "same") for name in TENSORFLOW),
    ("efficientnet-b0", "symmetric"),
    ("efficientnet-lite0", "symmetric"),
)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A network of timm against ours with the same weights.

    Attributes:
      name: timm's.
      difference: largest absolute difference of a logit.
      largest: largest absolute logit.
      spread: largest range of a logit over the images: what they have to do with it.
      tensors: number of tensors of timm's network.
      changed: names of those that differ in any bit after an import and an export.
    """

    name: str
    difference: float
    largest: float
    spread: float
    tensors: int
    changed: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether logits agree, depend far more on the images, and all tensors came back."""
        bound = BOUND * self.largest
        return self.difference <= bound < self.spread / 100 and not self.changed

    def __str__(self) -> str:
        back = f"{self.tensors - len(self.changed)} of {self.tensors}"
        verdict = "ok" if self.passed else "DIFFERS"
        return (
            f"| {self.name} | {self.difference:.1e} | {self.largest:.2f} | {self.spread:.2f} | {back} |"
            f" {verdict} |"
        )


def compare(name: str, padding: Padding = "same") -> Comparison:
    """Import a network of timm with random weights, run both, and export it back."""
    torch, timm = _libraries()
    theirs = timm_architecture(name, padding)
    images = np.random.default_rng(0).normal(0, 1, (IMAGES, SIZE, SIZE, 3)).astype(np.float32)
    torch.manual_seed(0)
    other = randomize(timm.create_model(theirs, num_classes=CLASSES), images)
    with torch.no_grad():
        expected = other(_channels_first(images)).numpy()
    weights, spec = save_and_import(other, theirs, get_spec(name))
    ours = build_model(spec, num_classes=CLASSES, image_size=SIZE)
    assign_weights(ours, weights)
    found = ours(images).numpy()
    back = to_timm(weights, spec, CLASSES)
    before = {key: tensor.numpy() for key, tensor in other.state_dict().items()}
    changed = [
        key
        for key in sorted(back.keys() | before.keys())
        if key not in back or key not in before or back[key].tobytes() != before[key].tobytes()
    ]
    return Comparison(
        theirs,
        float(np.max(np.abs(found - expected))),
        float(np.max(np.abs(expected))),
        float(np.max(np.ptp(expected, axis=0))),
        len(before),
        tuple(changed),
    )


def randomize(network: Any, images: np.ndarray) -> Any:
    """Give a network of timm random batch norms and biases, and statistics of images; return it.

    With initial statistics the logits of a deep network hardly depend on its images.
    """
    torch, _ = _libraries()
    norms = [x for x in network.modules() if isinstance(x, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:
            norm.weight.uniform_(0.7, 1.3)
            norm.momentum = 0.9  # not 1: a filter that is nearly constant would be blown up
        for key, parameter in network.named_parameters():
            if key.endswith("bias"):
                parameter.normal_(0.0, 0.1)
        network.train()(_channels_first(images))
        for norm in norms:
            norm.num_batches_tracked.zero_()  # an export has 0
    return network.eval()


def save_and_import(
    network: Any, architecture: str, spec: ModelSpec
) -> tuple[dict[str, np.ndarray], ModelSpec]:
    """Save a network of timm as it saves itself; return its weights by our paths, and their network."""
    save_file = importlib.import_module("safetensors.torch").save_file
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / FILE
        save_file(network.state_dict(), file, {"format": "pt", "architecture": architecture})
        opened = open_weights(file, spec)
    expected = opened.expectations
    spec = vary(spec, padding=expected.padding, batch_norm_epsilon=expected.batch_norm_epsilon)
    return dict(opened.weights), spec


def different_names(name: str) -> tuple[int, list[str]]:
    """Return how many tensors timm's network has, and the names that differ from an export's or in shape."""
    torch, timm = _libraries()
    spec = get_spec(name)
    with torch.device("meta"):
        other = timm.create_model(timm_architecture(name), num_classes=CLASSES)
    expected = {key: tuple(tensor.shape) for key, tensor in other.state_dict().items()}
    shapes = complexity(spec, num_classes=CLASSES).variable_shapes
    zeros = {path: np.broadcast_to(np.float32(0), shape) for path, shape in shapes.items()}
    found = {key: array.shape for key, array in to_timm(zeros, spec, CLASSES).items()}
    return len(expected), sorted(dict(found.items() ^ expected.items()))


def _channels_first(images: np.ndarray) -> Any:
    torch, _ = _libraries()
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


def _libraries() -> tuple[Any, Any]:
    try:
        return importlib.import_module("torch"), importlib.import_module("timm")
    except ImportError as error:
        raise UsageError(
            f"{error.name} is not installed: pip install -r requirements-interop.txt"
        ) from None


# -- the command --------------------------------------------------------------------------------


def page(comparisons: Sequence[Comparison], names: Sequence[str]) -> str:
    """Render the results in Markdown."""
    rows = "\n".join(map(str, comparisons))
    others = "\n".join(names)
    packages = ("keras", "timm", "torch", "safetensors")
    return (
        "# Against timm\n\n`python -m proofs.interop`: the same weights and images in both; a bound of"
        f" {BOUND:.0e} of the largest logit. Random weights, batch norms with statistics of the images;"
        f" {IMAGES} images of {SIZE} pixels, {CLASSES} classes.\n\n{conditions(*packages)}.\n\n"
        "| network of timm | largest difference of a logit | largest logit | largest range over the images |"
        f" tensors back to the bit | |\n|---|---|---|---|---|---|\n{rows}\n\n"
        "Those without `tf_` pad symmetrically, as PyTorch does.\n\n"
        "Names and shapes of all tensors, without weights:\n\n"
        "| network | tensors | different |\n|---|---|---|\n"
        f"{others}\n"
    )


def _name_rows() -> Iterator[tuple[str, bool]]:
    """Yield a row for each network that is not compared with weights, and whether its names agree."""
    for name in list_models():
        if name not in TENSORFLOW:
            count, different = different_names(name)
            shown = ", ".join(different[:3]) or "none"
            yield f"| {timm_architecture(name)} | {count} | {shown} |", not different


@command("proofs.interop")
def main(argv: Sequence[str] | None = None) -> int:
    """Compare and print; return the exit status, 1 if anything differs."""
    parser = Parser("proofs.interop", __doc__)
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    flags = parser.parse_args(argv)
    comparisons = []
    for name, padding in PAIRS:
        comparisons.append(compare(name, padding))
        print(comparisons[-1], flush=True)
    names = list(_name_rows())
    text = page(comparisons, [row for row, _ in names])
    print(text)
    if flags.output:
        write_text(str(flags.output), text)
    return 0 if all(each.passed for each in comparisons) and all(same for _, same in names) else 1


if __name__ == "__main__":
    sys.exit(main())
