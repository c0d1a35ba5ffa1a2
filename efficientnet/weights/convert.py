"""Convert weights between formats; the input's is recognised by its content.

    python -m efficientnet.weights.convert --input=efficientnet-b0/ --model=efficientnet-b0 \\
        --output=efficientnet-b0.weights.h5

reads a run, a TensorFlow checkpoint (its moving averages, or with --raw the last weights), or a file of
Keras, keras.applications, timm or efficientnet_pytorch. The output's format is that of its name:
.weights.h5 for this project, .safetensors for timm, any other .h5 for keras.applications.
"""

import sys
from collections.abc import Callable, Mapping, Sequence

from efficientnet.catalog import get_spec, vary
from efficientnet.spec import ModelSpec
from efficientnet.weights.expectations import Expectations
from efficientnet.weights.keras_applications import write_keras_applications_file
from efficientnet.weights.keras_file import EXTENSION, class_count, write_weights_file
from efficientnet.weights.matching import Weights, WeightsError, require_weights
from efficientnet.weights.open import open_weights
from efficientnet.weights.timm import timm_architecture, to_timm
from system.command import Parser, command


@command("efficientnet.weights.convert")
def main(argv: Sequence[str] | None = None) -> int:
    """Convert; return the exit status."""
    parser = _parser()
    flags = parser.parse_args(argv)
    write = next((WRITERS[end] for end in WRITERS if flags.output.endswith(end)), None)
    if write is None:
        parser.error(f"--output={flags.output} must end in {', '.join(WRITERS)}")
    try:
        spec = get_spec(flags.model, width=flags.width, depth=flags.depth)
    except ValueError as error:
        parser.error(str(error))

    weights, expectations = open_weights(flags.input, spec, raw=flags.raw)
    if flags.num_classes not in (None, class_count(weights)):
        raise WeightsError(
            f"{flags.input} has {class_count(weights)} classes, expected {flags.num_classes}"
        )
    require_weights(weights, spec, class_count(weights), flags.input)
    write(flags.output, spec, weights, expectations)
    values = sum(array.size for array in weights.values())
    print(
        f"wrote {flags.output}: {flags.model}, from {expectations.source}, {len(weights)} variables, "
        f"{values:,} values, {class_count(weights) or 'no'} classes"
    )
    return 0


def _parser() -> Parser:
    parser = Parser("efficientnet.weights.convert", __doc__)
    parser.add_argument("--input", required=True, help="a file, a folder, or a checkpoint's prefix")
    parser.add_argument("--model", required=True, help="published name, such as efficientnet-b0")
    parser.add_argument("--output", required=True, help=f"file to write: {', '.join(WRITERS)}")
    parser.add_argument(
        "--raw", action="store_true", help="take the last weights, not their moving averages"
    )
    parser.add_argument("--width", type=float, help="width coefficient (default: the model's own)")
    parser.add_argument("--depth", type=float, help="depth coefficient (default: the model's own)")
    parser.add_argument("--num_classes", type=int, help="required number of classes (default: any)")
    return parser


def _write_timm(file: str, spec: ModelSpec, weights: Weights, expectations: Expectations) -> None:
    from efficientnet.weights.safetensors_file import write_safetensors  # for such files alone

    metadata = {"architecture": timm_architecture(spec.name, expectations.padding or "same")}
    write_safetensors(file, to_timm(weights, spec, class_count(weights)), metadata)


def _write_keras_applications(
    file: str, spec: ModelSpec, weights: Weights, expectations: Expectations
) -> None:
    if expectations.padding == "symmetric":
        raise WeightsError(
            f"{file}: keras.applications pads as TensorFlow does, and the weights of"
            f" {expectations.source} want symmetric padding; write {EXTENSION} or .safetensors"
        )
    given = vary(spec, normalization=expectations.normalization)  # which the format holds
    write_keras_applications_file(file, given, weights)


Writer = Callable[[str, ModelSpec, Weights, Expectations], None]
WRITERS: Mapping[str, Writer] = {
    EXTENSION: write_weights_file,
    ".safetensors": _write_timm,
    ".h5": _write_keras_applications,
}


if __name__ == "__main__":
    sys.exit(main())
