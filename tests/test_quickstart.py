"""The notebook of the docs runs from its first cell to its last."""

import shlex
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

NOTEBOOK = Path(__file__).resolve().parent.parent / "docs" / "quickstart.ipynb"
FEW = ("model.width=0.25", "model.depth=0.1", "train.duration=10 steps", "augment.policy=none")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


def test_the_notebook_trains_reports_and_classifies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = shlex.join(f"--set={setting}" for setting in FEW)
    monkeypatch.setenv("QUICKSTART_FLAGS", flags)
    monkeypatch.setenv("QUICKSTART_RUN", str(tmp_path / "run"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3")
    client.execute(cwd=str(NOTEBOOK.parent))
    trained, report, classified = [
        cell.outputs for cell in notebook.cells if cell.cell_type == "code"
    ][1:]
    assert "step 10" in trained[0].text
    assert "top_1" in report[0].text
    assert ["image/svg+xml" in output.get("data", {}) for output in report[1:]] == [True, True]
    assert classified[0].text.count("%") == 5
    assert "image/png" in classified[1].data
