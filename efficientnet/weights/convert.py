"""Convert published weights to a file that training can start from.

    python -m efficientnet.weights.convert --checkpoint=efficientnet-b0 --model=efficientnet-b0 \\
        --output=efficientnet-b0.weights.h5

reads a TensorFlow 1 checkpoint of the published code: its moving averages, or with --raw the last weights.
--source=tf2 reads one of EfficientNetV2's TensorFlow 2 script, --source=keras_applications an .h5 or
.weights.h5 file of keras.applications.
"""

import sys
from collections.abc import Sequence

from system.tensorflow_log import quiet_tensorflow

if __name__ == "__main__":
    quiet_tensorflow()

from efficientnet.catalog import get_spec
from efficientnet.spec import ModelSpec
from efficientnet.weights.keras_applications import read_keras_applications_file
from efficientnet.weights.keras_file import EXTENSION, class_count, write_weights_file
from efficientnet.weights.matching import Weights, WeightsError
from system.command import Namespace, Parser, command


@command("efficientnet.weights.convert")
def main(argv: Sequence[str] | None = None) -> int:
    """Convert; return the exit status."""
    parser = _parser()
    flags = parser.parse_args(argv)
    if not flags.output.endswith(EXTENSION):
        parser.error(f"--output={flags.output} must end in {EXTENSION}")
    if flags.raw and flags.source != "tf1":
        parser.error("--raw needs --source=tf1; other files hold one set of weights")
    try:
        spec = get_spec(flags.model, width=flags.width, depth=flags.depth)
    except ValueError as error:
        parser.error(str(error))

    weights = _read(flags, spec)
    write_weights_file(flags.output, spec, weights)
    print(_summary(flags, weights))
    return 0


def _parser() -> Parser:
    parser = Parser("efficientnet.weights.convert", __doc__)
    parser.add_argument(
        "--checkpoint", required=True, help="directory or prefix of a checkpoint, or a file"
    )
    parser.add_argument("--model", required=True, help="published name, such as efficientnet-b0")
    parser.add_argument("--output", required=True, help=f"file to write, ending in {EXTENSION}")
    parser.add_argument("--source", choices=("tf1", "tf2", "keras_applications"), default="tf1")
    parser.add_argument(
        "--raw", action="store_true", help="take the last weights, not their moving averages"
    )
    parser.add_argument("--width", type=float, help="width coefficient (default: the model's own)")
    parser.add_argument("--depth", type=float, help="depth coefficient (default: the model's own)")
    parser.add_argument("--num_classes", type=int, help="required number of classes (default: any)")
    return parser


def _read(flags: Namespace, spec: ModelSpec) -> Weights:
    if flags.source == "tf1":
        from efficientnet.weights.tf1 import read_tf1_checkpoint  # loads TensorFlow

        return read_tf1_checkpoint(
            flags.checkpoint, spec, raw=flags.raw, num_classes=flags.num_classes
        )
    if flags.source == "tf2":
        from efficientnet.weights.tf2 import read_tf2_checkpoint  # loads TensorFlow

        return read_tf2_checkpoint(flags.checkpoint, spec, num_classes=flags.num_classes)
    weights = read_keras_applications_file(flags.checkpoint, spec)
    if flags.num_classes not in (None, class_count(weights)):
        raise WeightsError(
            f"{flags.checkpoint} has {class_count(weights)} classes, expected {flags.num_classes}"
        )
    return weights


def _summary(flags: Namespace, weights: Weights) -> str:
    values = sum(array.size for array in weights.values())
    kind = "raw weights" if flags.raw else "moving averages" if flags.source == "tf1" else "weights"
    classes = class_count(weights) or "no"
    return (
        f"wrote {flags.output}: {flags.model}, {kind}, {len(weights)} variables, "
        f"{values:,} values, {classes} classes"
    )


if __name__ == "__main__":
    sys.exit(main())
