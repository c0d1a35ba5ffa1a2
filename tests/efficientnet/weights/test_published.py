"""Published weights are downloaded by name, resumed, checked, and asked for in one line without a network."""

import hashlib
import http.server
import json
import os
import re
import threading

import numpy as np
import pytest

from efficientnet import complexity, get_spec, list_models
from efficientnet.weights import WeightsError, published
from efficientnet.weights.download import download
from efficientnet.weights.open import open_weights
from efficientnet.weights.published import FILES, NAMES
from efficientnet.weights.safetensors_file import write_safetensors
from efficientnet.weights.timm import to_timm
from tests.torch_files import torch_zip

SPEC = get_spec("efficientnet-b0", width=0.125, depth=0.1)
HALF = ((127.5,) * 3, (127.5,) * 3)


class Server(http.server.ThreadingHTTPServer):
    """Serves `files` by path; sends at most `limit` bytes of a body; knows ranges if `ranges`."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.limit, self.ranges, self.requests = {}, None, True, []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        wanted = self.headers.get("Range")
        self.server.requests.append((self.path, wanted))
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted else 0
        if start >= len(content) > 0 and wanted:
            self.send_error(416)
            return
        partial = wanted and self.server.ranges
        body = content[start if partial else 0 :]
        self.send_response(206 if partial else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.limit])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setattr(published, "RELEASES", running.url)
        monkeypatch.setattr(published, "HUB", running.url)
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def weights():
    random = np.random.default_rng(0)
    shapes = complexity(SPEC, num_classes=5).variable_shapes
    return {path: random.uniform(size=shape).astype(np.float32) for path, shape in shapes.items()}


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for path, array in expected.items():
        np.testing.assert_array_equal(found[path], array, err_msg=path)


def test_a_name_is_downloaded_once_and_says_what_it_expects(server, weights, monkeypatch, capsys):
    content = torch_zip(to_timm(weights, SPEC, 5))
    name = f"tf_efficientnet_b0_ap-{hashlib.sha256(content).hexdigest()[:8]}"
    monkeypatch.setitem(FILES, "efficientnet-b0", {"advprop": name})
    server.files[f"/v0.1-weights/{name}.pth"] = content
    for _ in range(2):
        opened = open_weights("advprop", SPEC)
        assert_equal(opened.weights, weights)
        assert opened.expectations.normalization == HALF
    assert len(server.requests) == 1
    assert capsys.readouterr().out.count("downloading http://") == 1
    with pytest.raises(WeightsError, match=r"no weights imagenet are published .* it has advprop"):
        open_weights("imagenet", SPEC)


def test_a_model_of_the_hub_is_downloaded_with_its_config(server, weights, tmp_path):
    write_safetensors(tmp_path / "x", to_timm(weights, SPEC, 5), {})
    config = {"architecture": "tf_efficientnet_b0", "pretrained_cfg": {"input_size": [3, 96, 96]}}
    folder = "/timm/tf_efficientnet_b0.in1k/resolve/main/"
    server.files[f"{folder}config.json"] = json.dumps(config).encode()
    server.files[f"{folder}model.safetensors"] = (tmp_path / "x").read_bytes()
    opened = open_weights("hf-hub:timm/tf_efficientnet_b0.in1k", SPEC)
    assert_equal(opened.weights, weights)
    assert opened.expectations.image_size == 96
    with pytest.raises(WeightsError, match=r"404.*Fix: put the file at .*config\.json$"):
        open_weights("hf-hub:timm/absent", SPEC)


@pytest.mark.parametrize("name", ["timm", "../x", "timm/../x", "timm/.x", "a/b/c", "timm/x?y"])
def test_a_name_that_leads_elsewhere_is_refused(name, server):
    with pytest.raises(WeightsError, match="is no name"):
        open_weights(f"hf-hub:{name}", SPEC)
    assert not server.requests


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_was_cut_off_is_resumed(ranges, server, tmp_path):
    content = np.random.default_rng(0).bytes(100_000)
    server.files["/x"], server.ranges, server.limit = content, ranges, 60_000
    digest = hashlib.sha256(content).hexdigest()
    with pytest.raises(
        WeightsError, match=r"ended after 60,000 of 100,000 bytes; the same command"
    ):
        download(f"{server.url}/x", tmp_path / "x", digest)
    assert not (tmp_path / "x").exists()
    server.limit = None
    assert download(f"{server.url}/x", tmp_path / "x", digest).read_bytes() == content
    assert server.requests == [("/x", None), ("/x", "bytes=60000-")]
    assert not (tmp_path / "x.part").exists()


def test_a_whole_unfinished_file_is_taken(server, tmp_path):
    server.files["/x"] = b"whole"
    (tmp_path / "x.part").write_bytes(b"whole")
    digest = hashlib.sha256(b"whole").hexdigest()
    assert download(f"{server.url}/x", tmp_path / "x", digest).read_bytes() == b"whole"


def test_a_download_is_synced_before_it_takes_its_name(server, tmp_path, monkeypatch):
    server.files["/x"], synced = b"whole", []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append((tmp_path / "x").exists()))
    download(f"{server.url}/x", tmp_path / "x", hashlib.sha256(b"whole").hexdigest())
    assert synced == [False]
    assert (tmp_path / "x").read_bytes() == b"whole"


def test_another_file_is_refused_before_and_after_it_is_in_the_cache(server, tmp_path):
    server.files["/x"] = b"another"
    digest = hashlib.sha256(b"the file").hexdigest()
    with pytest.raises(WeightsError, match=rf"SHA-256 begins with .*, expected {digest}"):
        download(f"{server.url}/x", tmp_path / "x", digest)
    assert not list(tmp_path.glob("x*.part"))
    (tmp_path / "x").write_bytes(b"the fil")
    with pytest.raises(WeightsError, match=rf"Fix: delete {tmp_path}/x, and run it again"):
        download(f"{server.url}/x", tmp_path / "x", digest)


def test_without_a_network_one_line_names_the_file_and_where_to_put_it(server, tmp_path):
    server.shutdown()
    server.server_close()
    with pytest.raises(WeightsError) as raised:
        open_weights("imagenet", SPEC)
    line = str(raised.value)
    assert "\n" not in line
    name = "tf_efficientnet_b0_aa-827b6e33.pth"
    assert line.startswith(f"cannot download {server.url}/v0.1-weights/{name} (")
    assert line.endswith(f"Fix: put the file at {tmp_path}/cache/efficientnet/{name}")


@pytest.mark.parametrize(
    ("name", "hint"),
    [("imagnet", "did you mean imagenet? "), ("weel", "did you mean wheel? "), ("./a.h5", "")],
)
def test_an_unknown_name_is_refused_with_what_is_accepted(name, hint):
    with pytest.raises(WeightsError) as error:
        open_weights(name, SPEC)
    assert str(error.value) == (
        f"no weights at {name}; {hint}expected imagenet, advprop, noisy-student, imagenet21k, wheel, "
        "hf-hub:timm/MODEL, or a file or folder"
    )


def test_the_table_has_every_model_and_names_each_file_with_its_digits():
    assert FILES.keys() == set(list_models())
    for model, files in FILES.items():
        for name, file in files.items():
            assert name in NAMES
            assert re.fullmatch(r"tf_[a-z0-9_]+-[0-9a-f]{8}", file)
            assert file.startswith(f"tf_{model.replace('-', '_')}")
