"""Read and write `.safetensors` files (github.com/huggingface/safetensors).

bfloat16 is read because Keras imports ml_dtypes, which gives the type to NumPy.
"""

import io
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from efficientnet.weights.containers import SAFETENSORS, identify_file
from efficientnet.weights.matching import WeightsError
from system.errors import first_line
from system.files import write_bytes

FORMAT = {"format": "pt"}  # timm and transformers refuse files without it


def read_safetensors(
    content: bytes, source: str
) -> tuple[dict[str, np.ndarray], Mapping[str, str]]:
    """Return the arrays of a file by name, and its metadata.

    Raises:
      WeightsError: the file is damaged.
    """
    found = identify_file(io.BytesIO(content))
    if found != SAFETENSORS:
        raise WeightsError(f"cannot read {source} as a safetensors file: it is {found}")
    try:
        tensors = load(content)
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"cannot read {source} as a safetensors file: {first_line(error)}"
        ) from error
    return tensors, metadata


def write_safetensors(
    file: str | Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Write arrays by name atomically.

    Raises:
      OSError: the file cannot be written.
    """
    write_bytes(str(file), save(dict(tensors), {**FORMAT, **metadata}))
