"""TensorFlow Serving itself loads an export and answers by REST and gRPC; skipped where it is not."""

import base64
import json
import os
import shutil
import socket
import subprocess
import threading
import urllib.request

import grpc
import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.images.view import EvalView
from serving.saved_model import Servable, export_saved_model
from tests.serving.messages import message_class

pytestmark = pytest.mark.slow

NAMES = ("zero", "one", "two", "three", "four", "fünf", "six six")
READY = "Exporting HTTP/REST API"  # said when both doors are open and the model is loaded
SECONDS = 60  # an answer that takes longer is none


@pytest.fixture(scope="module")
def binary():
    found = os.environ.get("TF_SERVING") or shutil.which("tensorflow_model_server")
    if not found:
        pytest.skip(
            "no tensorflow_model_server on PATH and no $TF_SERVING: the real server isn't driven"
        )
    return found


@pytest.fixture(scope="module")
def folder(binary, tmp_path_factory, spec, values):
    servable = Servable(spec, len(NAMES), **values, view=EvalView(32), class_names=NAMES)
    return export_saved_model(str(tmp_path_factory.mktemp("served")), servable, version=3)


@pytest.fixture(scope="module")
def ports(binary, folder):
    """REST's and gRPC's of a server that has loaded and warmed up the export."""
    rest, rpc = _free_ports(2)
    server = subprocess.Popen(
        [
            binary,
            f"--rest_api_port={rest}",
            f"--port={rpc}",
            "--model_name=digits",
            f"--model_base_path={os.path.dirname(folder)}",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said = []
    # The server blocks on a full pipe unless its output is read.
    reader = threading.Thread(target=lambda: said.extend(server.stdout))
    try:
        for line in server.stdout:
            said.append(line)
            if READY in line:
                break
        else:
            pytest.fail(f"the server ended with {server.wait()}:\n{''.join(said)}")
        reader.start()
        yield rest, rpc
    finally:
        server.terminate()
        server.wait()
        if reader.ident:
            reader.join()
        server.stdout.close()


def _free_ports(count):
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("localhost", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _expected(folder, signature, **inputs):
    answer = tf.saved_model.load(folder).signatures[signature](**inputs)
    return {name: value.numpy() for name, value in answer.items()}


def test_rest_answers_as_the_signature_does(ports, folder, encoded, broken):
    images = [encoded["jpeg"], broken["text"], encoded["png"]]
    instances = [{"image_bytes": {"b64": base64.b64encode(image).decode()}} for image in images]
    request = urllib.request.Request(
        f"http://localhost:{ports[0]}/v1/models/digits:predict",
        json.dumps({"signature_name": "serving_default", "instances": instances}).encode(),
    )
    with urllib.request.urlopen(request, timeout=SECONDS) as reply:
        rows = json.loads(reply.read())["predictions"]
    expected = _expected(folder, "serving_default", image_bytes=tf.constant(images))
    assert {key for row in rows for key in row} == set(expected)
    for key in ("probabilities", "scores"):
        np.testing.assert_allclose([row[key] for row in rows], expected[key], atol=1e-5)
    for key in ("classes", "valid"):
        assert [row[key] for row in rows] == expected[key].tolist()
    labels = [[name.decode() for name in row] for row in expected["labels"]]
    assert [row["labels"] for row in rows] == labels


@pytest.mark.parametrize(
    "signature", ["serving_default", "predict_images", "features", "endpoints"]
)
def test_grpc_answers_as_the_signature_does(signature, ports, folder, encoded, picture):
    if signature in ("serving_default", "features"):
        inputs = {"image_bytes": tf.constant([encoded["png"], encoded["grey jpeg"]])}
    else:
        pictures = np.stack([picture(32, 32, seed) for seed in range(3)])
        inputs = {"images": tf.constant(pictures, tf.float32)}
    request = message_class("PredictRequest")()
    request.model_spec.name = "digits"
    request.model_spec.signature_name = signature
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    with grpc.insecure_channel(f"localhost:{ports[1]}") as channel:
        predict = channel.unary_unary(
            "/tensorflow.serving.PredictionService/Predict",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=message_class("PredictResponse").FromString,
        )
        outputs = predict(request, timeout=SECONDS).outputs
    expected = _expected(folder, signature, **inputs)
    assert set(outputs) == set(expected)
    for name, value in expected.items():
        found = tf.make_ndarray(outputs[name])
        if value.dtype == np.float32:
            np.testing.assert_allclose(found, value, atol=1e-4, rtol=1e-4)
        else:
            np.testing.assert_array_equal(found, value)
