"""The networks need Keras, not TensorFlow."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import efficientnet

PACKAGE = Path(efficientnet.__file__).parent


def imported_modules(source):
    """Top-level packages that a source file imports, wherever in it."""
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]


def test_network_sources_import_keras_and_the_ground_floor_only():
    allowed = set(sys.stdlib_module_names) | {"keras", "numpy", "efficientnet", "system"}
    sources = [path for path in PACKAGE.rglob("*.py") if "weights" not in path.parts]
    assert len(sources) > 8
    for source in sources:
        assert set(imported_modules(source)) <= allowed, source


ON_JAX = """
import sys
import numpy as np
import keras
import efficientnet

assert keras.backend.backend() == "jax"
given = np.load(sys.argv[1])
spec = efficientnet.get_spec(sys.argv[2], width=0.25, depth=float(sys.argv[3]))
model = efficientnet.build_model(spec, num_classes=7)
model.set_weights([given[v.path] for v in model.weights])
images = efficientnet.normalize_images(given["pixels"], spec.mean_rgb, spec.stddev_rgb)
np.testing.assert_allclose(np.asarray(model(images)), given["logits"], rtol=1e-4, atol=1e-4)
assert np.isfinite(np.asarray(model(images, training=True))).all()
assert len(efficientnet.endpoints(model)) == int(sys.argv[4])
assert "tensorflow" not in sys.modules
"""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "depth"), [("efficientnet-b0", 0.1), ("efficientnetv2-b0", 0.3)])
def test_jax_computes_the_same_logits_without_loading_tensorflow(name, depth, tmp_path, settle):
    spec = efficientnet.get_spec(name, width=0.25, depth=depth)
    model = efficientnet.build_model(spec, num_classes=7)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype("uint8")
    images = efficientnet.normalize_images(pixels, spec.mean_rgb, spec.stddev_rgb)
    settle(model, images)
    assert np.ptp(model(images), axis=0).max() > 0.1  # the logits do depend on the image
    paths = [v.path for v in model.weights]
    weights = dict(zip(paths, model.get_weights(), strict=True))
    np.savez(tmp_path / "given.npz", pixels=pixels, logits=model(images).numpy(), **weights)

    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # 80 s of compilation otherwise
        "PYTHONPATH": os.pathsep.join([str(PACKAGE.parent), *sys.path]),
    }
    network = [name, str(depth), str(len(efficientnet.endpoints(model)))]
    command = [sys.executable, "-c", ON_JAX, str(tmp_path / "given.npz"), *network]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
