"""The step compiled for TPUs: what is made of the compiler's figures, and a small network through it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from proofs import tpu_compile
from training.forecast.tpu_chips import COMPILE_REPORT, parse_topology, roofline

ROOT = Path(__file__).resolve().parents[2]

RESULT = {
    "compiles": True,
    "argument_bytes": 100e6,
    "temporary_bytes": 1500e6,
    "output_bytes": 90e6,
    "flops": 197e9,
    "bytes_accessed": 819e7,
    "compile_seconds": 60.0,
}
RECORD = RESULT | {
    "recipe": "efficientnet_b0",
    "model": "efficientnet-b0",
    "network": "project",
    "image_size": 224,
    "per_replica_batch": 64,
    "topology": "v5e:2x2",
    "state_bytes": 85e6,
    "date": "2026-01-01",
    "commit": "abc",
    "versions": "libtpu 0.0.20",
}


def test_the_slower_of_arithmetic_and_memory_is_the_step_time():
    v5e = parse_topology("v5e:2x2")
    memory_bound = roofline(RECORD, v5e)
    assert memory_bound.step_seconds == pytest.approx(0.010)  # 8.19 GB at 819 GB/s
    assert memory_bound.images_per_second == pytest.approx(6400)
    assert memory_bound.hbm_bytes == 1600e6
    busy = roofline(RECORD | {"flops": 197e12}, v5e)
    assert busy.step_seconds == pytest.approx(1.0)


def test_a_core_of_an_old_chip_has_half_of_it():
    v3 = roofline(RECORD, parse_topology("v3:2x2"))
    assert v3.step_seconds == pytest.approx(819e7 / 450e9)
    assert v3.images_per_second == pytest.approx(2 * 64 / v3.step_seconds)


def test_hours_fall_with_the_number_of_chips():
    outlook = roofline(RECORD, parse_topology("v5e:2x2"))
    assert outlook.hours(350, 1) == pytest.approx(350 * 1_281_167 / 6400 / 3600)
    assert outlook.hours(350, 8) == pytest.approx(outlook.hours(350, 1) / 8)


def test_a_recipe_that_is_not_trained_on_imagenet_has_no_hours():
    detector = RECORD | {"recipe": "efficientdet_d0", "task": "detection"}
    lines = tpu_compile.hours_lines([RECORD, detector], [8])
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| efficientnet_b0"]


def test_a_step_measured_again_takes_the_place_of_the_one_before():
    other = RECORD | {"topology": "v4:2x2x1"}
    records = tpu_compile.merge_records([RECORD, other], [RECORD | {"commit": "def"}])
    assert [(r["topology"], r["commit"]) for r in records] == [
        ("v4:2x2x1", "abc"),
        ("v5e:2x2", "def"),
    ]


def test_steps_of_two_networks_are_both_kept_under_one_name():
    other = RECORD | {"model": "efficientnet-lite0"}
    assert len(tpu_compile.merge_records([RECORD], [other])) == 2
    older = {key: value for key, value in RECORD.items() if key != "model"}
    assert len(tpu_compile.merge_records([older], [RECORD])) == 2


def test_bytes_are_told_as_a_share_of_the_plain_step_of_the_same_size():
    plain = RECORD | {"network": "keras.applications", "bytes_accessed": 1638e7}
    rows = tpu_compile.table_lines([RECORD, plain, RECORD | {"image_size": 96}])
    shares = [row.split(" | ")[10] for row in rows[2:]]
    assert shares == ["50%", "100%", ""]


def test_what_does_not_compile_says_why():
    row = tpu_compile.table_lines([RECORD | {"compiles": False, "error": "RESOURCE_EXHAUSTED"}])[2]
    assert "no: RESOURCE_EXHAUSTED" in row


def test_the_committed_page_is_made_from_the_committed_records():
    records = json.loads(COMPILE_REPORT.read_text())
    page = (ROOT / "proofs/results/tpu_compile.md").read_text()
    for line in [*tpu_compile.table_lines(records), *tpu_compile.provenance_lines(records)]:
        assert line in page


def test_a_step_of_a_part_of_the_blocks_is_marked_and_kept_beside_the_whole_one():
    part = RECORD | {"blocks": [9, 21]}
    records = tpu_compile.merge_records([RECORD], [part])
    assert len(records) == 2
    assert "| 9 of 21 blocks, extrapolated, 60 s |" in tpu_compile.table_lines(records)[3]
    assert "| efficientnet_b0 (extrapolated) |" in tpu_compile.hours_lines(records, [8])[3]
    assert tpu_compile.merge_records(records, [part]) == records


def test_a_part_of_keras_applications_cannot_be_compiled(capsys):
    flags = ["--repeats_divisor=3", "--network=keras.applications"]
    assert tpu_compile.main(flags) == 2
    assert "only a part of --network=project" in capsys.readouterr().err


def test_the_page_names_versions_and_sources_and_is_made_from_the_json(tmp_path):
    page, kept = tmp_path / "results/page.md", tmp_path / "forecast/records.json"
    tpu_compile.write_page(page, kept, [RECORD], [8])
    assert json.loads(kept.read_text()) == [RECORD]
    text = page.read_text()
    assert "2026-01-01, commit abc, libtpu 0.0.20: efficientnet_b0" in text
    assert "https://cloud.google.com/tpu/docs/v5e" in text
    assert "8 (v5litepod-8)" in text
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("text", ["v5e", "v9:2x2", "v5e:0x2", "v5e:2", "2x2", "v5e:2x2x2x2"])
def test_a_topology_that_is_none_is_refused_with_an_example(text, capsys):
    assert tpu_compile.main([f"--topology={text}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"proofs.tpu_compile: --topology={text}: expected CHIP:AxB")


def test_flat_wirings_of_cubes_get_their_third_side():
    topology = parse_topology("v4:2x2")
    assert str(topology) == "v4:2x2x1"
    assert (topology.chips, topology.replicas) == (4, 4)
    assert parse_topology("v3:2x2").replicas == 8


def test_an_environment_without_the_compiler_is_told_how_to_make_one(capsys, monkeypatch):
    monkeypatch.setattr(tpu_compile.importlib.util, "find_spec", lambda name: None)
    assert tpu_compile.main([]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "requirements-compile.txt" in line


@pytest.fixture(scope="module")
def compile_python():
    """Return the Python that has the requirements: EFFICIENTNET_COMPILE_PYTHON or .venv-compile's."""
    default = ROOT / ".venv-compile/bin/python"
    python = Path(os.environ.get("EFFICIENTNET_COMPILE_PYTHON", default))
    if not python.exists():
        pytest.skip(
            f"{python} is not here; pip install -r requirements-compile.txt in .venv-compile"
        )
    return python


@pytest.mark.slow
def test_a_small_step_is_lowered_and_compiled(compile_python, tmp_path):
    page, kept = tmp_path / "page.md", tmp_path / "records.json"
    command = [compile_python, "-m", "proofs.tpu_compile", "--topology=v5e:2x2"]
    command += ["--per_replica_batch=2", "--set=model.width=0.1", "--set=model.depth=0.1"]
    command += [
        "--set=model.image_size=32",
        "--set=model.num_classes=10",
        f"--output={page}",
        f"--records={kept}",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    (record,) = json.loads(kept.read_text())
    assert record["compiles"]
    assert record["argument_bytes"] > record["state_bytes"] > 0
    assert record["flops"] > 0
    assert record["bytes_accessed"] > record["state_bytes"]


def test_the_command_starts_without_tensorflow() -> None:
    # tensorflow-tpu asks Google's metadata server when it is imported, for minutes elsewhere.
    program = "import sys, proofs.tpu_compile; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0
