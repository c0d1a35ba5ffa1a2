"""A TPU by its name: a local server answers as the cloud's API does, in each state of a node."""

import http.server
import json
import threading

import pytest
import tensorflow as tf

from training.devices.distribution import DistributionError, check_node, connect

pytestmark = pytest.mark.slow

OURS = ".".join(tf.__version__.split(".")[:2])
READY = {
    "state": "READY",
    "health": "HEALTHY",
    "tensorflowVersion": f"{OURS}.0",
    "networkEndpoints": [{"ipAddress": "127.0.0.1", "port": 8470}],
}
NODES = {
    "healthy": READY,
    "base-image": READY | {"tensorflowVersion": "tpu-ubuntu-base"},
    "creating": READY | {"state": "CREATING"},
    "preempted": READY | {"state": "PREEMPTED"},
    "unhealthy": READY
    | {"health": "UNHEALTHY_MAINTENANCE", "healthDescription": "host is being repaired"},
    "old": READY | {"tensorflowVersion": "2.12.1"},
}
# The part of the discovery document that looking a node up needs.
DISCOVERY = {
    "kind": "discovery#restDescription",
    "name": "tpu",
    "version": "v1",
    "servicePath": "",
    "batchPath": "batch",
    "schemas": {"Node": {"id": "Node", "type": "object"}},
    "resources": {
        "projects": {
            "resources": {
                "locations": {
                    "resources": {
                        "nodes": {
                            "methods": {
                                "get": {
                                    "id": "tpu.projects.locations.nodes.get",
                                    "path": "v1/{+name}",
                                    "httpMethod": "GET",
                                    "parameterOrder": ["name"],
                                    "response": {"$ref": "Node"},
                                    "parameters": {
                                        "name": {
                                            "type": "string",
                                            "required": True,
                                            "location": "path",
                                            "pattern": "^projects/[^/]+/locations/[^/]+/nodes/[^/]+$",
                                        }
                                    },
                                }
                            }
                        }
                    }
                }
            }
        }
    },
}


class Api(http.server.BaseHTTPRequestHandler):
    """Discovery and node answers of the TPU API."""

    def do_GET(self):
        self.server.asked.append(self.path)
        name = self.path.split("?")[0].rsplit("/", 1)[-1]
        if name == "discovery":
            root = f"http://127.0.0.1:{self.server.server_port}/"
            self.answer(200, DISCOVERY | {"rootUrl": root, "baseUrl": root})
        elif name == "forbidden":
            self.answer(403, {"error": {"code": 403, "message": "Permission denied"}})
        elif name in NODES:
            self.answer(200, NODES[name])
        else:
            self.answer(404, {"error": {"code": 404, "message": "not found"}})

    def answer(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def api(server, monkeypatch):
    """The server in the place of the cloud's, and credentials that it takes."""
    from oauth2client import client

    monkeypatch.setenv("TPU_API_DISCOVERY_URL", f"http://127.0.0.1:{server.server_port}/discovery")
    monkeypatch.setattr(
        client.GoogleCredentials,
        "get_application_default",
        lambda: client.AccessTokenCredentials("a token", "a test"),
    )
    server.asked.clear()
    return server


def refused(name):
    with pytest.raises(DistributionError) as error:
        check_node(name, "us-central2-b", "a-project")
    message = str(error.value)
    assert len(message.splitlines()) == 1
    assert message.startswith(f"--tpu={name}: ")
    return message


@pytest.mark.parametrize("name", ["healthy", "base-image"])
def test_a_ready_node_of_this_tensorflow_passes(api, name):
    check_node(name, "us-central2-b", "a-project")
    asked = f"/v1/projects/a-project/locations/us-central2-b/nodes/{name}"
    assert api.asked[-1].split("?")[0] == asked


@pytest.mark.parametrize(
    ("name", "what", "remedy"),
    [
        ("creating", "CREATING", "wait until"),
        ("preempted", "PREEMPTED", "create it again"),
        ("unhealthy", "UNHEALTHY_MAINTENANCE (host is being repaired)", "wait for its repair"),
        ("old", f"2.12.1 and this program {tf.__version__}", f"create the node with {OURS}"),
        ("missing", "no node of this name", "tpu-vm list"),
        ("forbidden", "the TPU API denies access", "roles/tpu.viewer"),
    ],
)
def test_what_is_wrong_with_a_node_is_one_line_with_advice(api, name, what, remedy):
    message = refused(name)
    assert what in message
    assert remedy in message


def test_training_asks_the_node_before_tensorflow_does(api):
    with pytest.raises(DistributionError, match=r"^--tpu=creating: the node is CREATING"):
        connect(tpu="creating", tpu_zone="us-central2-b", gcp_project="a-project")


def test_an_api_that_does_not_answer_is_one_line(api, monkeypatch):
    monkeypatch.setenv("TPU_API_DISCOVERY_URL", "http://127.0.0.1:1/discovery")
    assert "the TPU API can't be reached" in refused("healthy")


def test_outside_the_cloud_a_name_needs_zone_and_project(monkeypatch):
    from cloud_tpu_client import client

    monkeypatch.setattr(client, "_GCE_METADATA_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(DistributionError, match="--tpu_zone and --gcp_project"):
        check_node("anything", None, None)


def test_an_address_where_nobody_listens_is_one_line():
    with pytest.raises(DistributionError) as error:
        connect(tpu="grpc://127.0.0.1:1")
    assert str(error.value).startswith("--tpu=grpc://127.0.0.1:1: ")
    assert len(str(error.value).splitlines()) == 1
