"""The requests and answers that docs/serving.md shows are those of the signatures."""

import base64
import json
import re
from pathlib import Path

import pytest
import tensorflow as tf

from input_pipeline.images.view import EvalView
from serving.saved_model import Servable, export_saved_model

pytestmark = pytest.mark.slow

PAGE = Path(__file__).resolve().parents[2] / "docs" / "serving.md"


def example(name):
    text = PAGE.read_text()
    block = re.search(rf"<!-- {name}: begin -->\n```json\n(.*?)```", text, re.DOTALL)
    assert block, f"no example of a {name}"
    return json.loads(block[1])


@pytest.fixture(scope="module")
def signatures(tmp_path_factory, spec, values):
    weights = [*values["weights"][:-2], values["weights"][-2][:, :3], values["weights"][-1][:3]]
    servable = Servable(
        spec,
        3,
        weights,
        values["statistics"],
        view=EvalView(32),
        class_names=["zero", "one", "two"],
    )
    folder = export_saved_model(str(tmp_path_factory.mktemp("page")), servable, version=1)
    return tf.saved_model.load(folder).signatures


def test_the_request_fits_its_signature_and_the_answer_looks_as_shown(signatures, encoded):
    request = example("request")
    signature = signatures[request["signature_name"]]
    (instance,) = request["instances"]
    _, inputs = signature.structured_input_signature
    assert set(instance) == set(inputs)
    for name, value in instance.items():
        assert inputs[name].dtype == tf.string
        assert name.endswith("_bytes")  # what TensorFlow Serving decodes base64 for
        base64.b64decode(value["b64"], validate=True)
    answer = signature(image_bytes=tf.constant([encoded["png"]]))
    (shown,) = example("response")["predictions"]
    assert set(shown) == set(answer)
    for name, value in shown.items():
        found = answer[name].numpy()[0]
        assert _kinds(value) == _kinds(found.tolist()), name
    assert {shown["labels"][i] for i in range(3)} == {"zero", "one", "two"}


def _kinds(value):
    """Nested types, without a distinction between bytes and text."""
    if isinstance(value, list):
        return [_kinds(entry) for entry in value]
    return str if isinstance(value, bytes) else type(value)


def test_the_page_lists_every_signature_and_output(signatures):
    rows = dict(
        re.findall(r"^\| `(\w+)` \| (`(?:image_bytes|images)`.*)$", PAGE.read_text(), re.MULTILINE)
    )
    assert set(rows) == set(signatures)
    for name in ("serving_default", "features", "explain"):
        for output in signatures[name].structured_outputs:
            assert f"`{output}`" in rows[name]
