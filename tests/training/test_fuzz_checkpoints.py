"""Whatever happens to a checkpoint's files, what is read is what was written, at that step or before."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from run_folder.checkpoints import CheckpointStore
from tests.fuzz import bounded, damaged

pytestmark = pytest.mark.slow

FILES = ("values.index", "values.data-00000-of-00001", "manifest.json")


def arrays(step: int) -> dict[str, np.ndarray]:
    return {"step": np.int32(step), "kernel": np.random.default_rng(step).normal(size=(3, 5))}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    for step in (1, 2):
        CheckpointStore(str(folder), best_metric="top_1").save(
            step, arrays(step), {"top_1": step / 10}
        )
    return folder


@bounded(100)
@given(data=st.data())
def test_fuzz_of_checkpoint_files(
    sound: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    shutil.copytree(sound, folder, dirs_exist_ok=True)
    newest = folder / "checkpoints/step_00000002"
    for name in data.draw(st.sets(st.sampled_from(FILES), min_size=1)):
        original = (newest / name).read_bytes()
        (newest / name).write_bytes(data.draw(damaged({name: original})))
    logged: list[str] = []
    for which in ("latest", "best"):
        store = CheckpointStore(str(folder), best_metric="top_1", log=logged.append)
        checkpoint = getattr(store, which)()
        assert checkpoint is not None
        assert checkpoint.metrics == {"top_1": checkpoint.step / 10}
        expected, found = arrays(checkpoint.step), checkpoint.read()
        assert found.keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array)
        assert checkpoint.step == 2 or "step_00000002" in logged[-1]
    assert all(len(line.splitlines()) == 1 for line in logged)
    shutil.rmtree(folder)
