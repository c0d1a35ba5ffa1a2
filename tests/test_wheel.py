"""The wheel holds the networks alone, and works where nothing else of this repository is."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import efficientnet

ROOT = Path(__file__).resolve().parent.parent

USE = """
import importlib, pkgutil
import efficientnet
for module in pkgutil.walk_packages(efficientnet.__path__, "efficientnet."):
    importlib.import_module(module.name)
spec = efficientnet.get_spec("efficientnet-b0", width=0.25, depth=0.1)
model = efficientnet.build_model(spec, num_classes=7)
efficientnet.weights.write_weights_file("a.weights.h5", spec, {v.path: v.numpy() for v in model.weights})
print(efficientnet.__file__, len(efficientnet.weights.read_weights_file("a.weights.h5")))
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Folder that the project is installed into, without its dependencies."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", f"--target={folder}", str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_wheel_holds_one_package_and_its_licence(installed):
    (metadata,) = installed.glob("*.dist-info")
    assert {path.name for path in installed.iterdir()} == {"efficientnet", metadata.name}
    assert (metadata / "licenses" / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    found = {path.name for path in (installed / "efficientnet").rglob("*.py")}
    assert {path.name for path in (ROOT / "efficientnet").rglob("*.py")} - found == {"run.py"}


def test_an_installed_copy_builds_a_network_and_reads_weights(installed, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", USE],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    file, count = done.stdout.split()[-2:]
    assert Path(file).parent == installed / "efficientnet"
    assert int(count) > 50


def test_what_the_wheel_imports_is_among_its_dependencies(installed):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]["tensorflow"]
    declared = {re.split(r"[><=]", line)[0] for line in [*project["dependencies"], *extras]}
    declared |= {"efficientnet", *sys.stdlib_module_names}
    for source in (installed / "efficientnet").rglob("*.py"):
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} <= declared, source
            elif isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] in declared, source


def test_modules_of_the_ground_floor_come_along_as_far_as_they_are_imported(tmp_path):
    for name, text in {
        "efficientnet/model.py": "def read():\n    from system.files import read_text\n",
        "system/__init__.py": "",
        "system/files.py": "from system import errors\n",
        "system/errors.py": "",
        "system/console.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    hook = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    module = importlib.util.module_from_spec(hook)
    hook.loader.exec_module(module)
    names = [path.name for path in module.ground_modules(tmp_path)]
    assert names == ["__init__.py", "errors.py", "files.py"]
    rewritten = module.IMPORT.sub(r"\1from efficientnet._system", "    from system.files import x")
    assert rewritten == "    from efficientnet._system.files import x"


def test_there_is_one_version(installed):
    (metadata,) = installed.glob("*.dist-info")
    assert metadata.name == f"efficientnet_networks-{efficientnet.__version__}.dist-info"
    assert f"\nversion: {efficientnet.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    released = re.findall(
        r"^## \[(\d.*)\] - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.M
    )
    assert released[0] == efficientnet.__version__


def test_without_a_backend_the_error_names_what_to_install(installed, tmp_path):
    (tmp_path / "keras.py").write_text("import no_such_backend\n")
    path = os.pathsep.join([str(tmp_path), str(installed)])
    done = subprocess.run(
        [sys.executable, "-c", "import efficientnet"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.splitlines()[-1] == (
        "ImportError: efficientnet needs a backend of Keras, and no_such_backend is not installed: "
        "pip install tensorflow, or jax with KERAS_BACKEND=jax"
    )
