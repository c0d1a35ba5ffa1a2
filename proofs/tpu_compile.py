"""Compile a recipe's training step for a TPU, check its memory, and bound its speed.

    python -m venv .venv-compile && .venv-compile/bin/pip install -r requirements-compile.txt
    .venv-compile/bin/python -m proofs.tpu_compile --config=configs/efficientnet_b0.yaml
        --topology=v5e:2x2[,v4:2x2x1] [--network=project,keras.applications] [--per_replica_batch=64]
        [--chips=8,32,128] [--repeats_divisor=3] [--set section.field=value ...]
        [--output=proofs/results/tpu_compile.md]

lowers the whole step (bfloat16, optimizer and averages) with TensorFlow's TPU kernels in one process and
compiles it with the pinned libtpu in another; no TPU is needed, but each topology takes ten minutes or
more. Bytes and FLOPs are those of the compiler's cost model. The step time is the roofline: the larger
of FLOPs over the chip's peak and bytes over its memory bandwidth, which no real step undercuts and which
leaves out the sums over replicas and the input. With --repeats_divisor=N only 1/N of the blocks of
each stage are compiled, and the figures are extrapolated to all of them and marked.

With --output the records are kept in --records, where --mode=plan looks for them, and the page is written
from all of them; a new record of a step replaces the old one.
"""

import dataclasses
import datetime
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from configs.load import load_experiment
from system.command import SUPPRESS, Parser, command, positive, positives
from system.conditions import ROOT, commit
from system.errors import UsageError, UserError
from system.files import write_text
from system.tensorflow_log import quiet_tensorflow
from training.forecast.tpu_chips import CHIPS, COMPILE_REPORT, Topology, parse_topology, roofline

NETWORKS = ("project", "keras.applications")
EPOCHS = (350, 600)


@dataclasses.dataclass(frozen=True)
class CompiledStep:
    """A recipe's training step on one replica, as it is compiled."""

    recipe: str  # name of the experiment
    model: str  # name of the network
    network: str  # one of NETWORKS
    image_size: int  # pixels
    per_replica_batch: int


# -- one step, in two processes -----------------------------------------------------------------


def measure(
    config: str,
    overrides: Sequence[str],
    network: str,
    batch: int,
    topologies: Sequence[Topology],
    repeats_divisor: int = 1,
) -> list[dict[str, Any]]:
    """Lower a recipe's step once and compile it for each topology; return one record each.

    With a `repeats_divisor` above 1 a part of the blocks is compiled; the records are extrapolated from it
    and have "blocks": the number of compiled ones and of all.

    Raises:
      UserError: the step could not be lowered; the message is the last line of TensorFlow's error.
    """
    with tempfile.TemporaryDirectory() as folder:
        module = Path(folder, "step.mlir")
        task = [config, list(overrides), network, batch, repeats_divisor, str(module)]
        lowered = _in_own_process("lower", task)
        records = []
        for topology in topologies:
            step = CompiledStep(
                lowered["recipe"], lowered["model"], network, lowered["image_size"], batch
            )
            print(f"compiling {step.recipe} ({network}) for {topology} ...", flush=True)
            try:
                result = _in_own_process("compile", [str(module), str(topology)])
                if part := lowered["extrapolation"]:
                    result = extrapolate(result, part["factors"]) | {"blocks": part["blocks"]}
            except UserError as error:
                result = {"compiles": False, "error": str(error)}
            records.append(
                dataclasses.asdict(step)
                | {"topology": str(topology), "task": lowered["task"]}
                | {"state_bytes": lowered["state_bytes"]}
                | result
                | _provenance()
            )
        return records


def extrapolate(result: Mapping[str, Any], by: Mapping[str, float]) -> dict[str, Any]:
    """Return the compiler's figures times the factors of proofs.extrapolation; an error has none."""
    return {name: value * by[name] if name in by else value for name, value in result.items()}


def _in_own_process(stage: str, task: list[Any]) -> dict[str, Any]:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "proofs.tpu_compile",
            "--stage",
            stage,
            "--task",
            json.dumps(task),
        ],
        cwd=ROOT,
        env=os.environ | {"TPU_SKIP_MDS_QUERY": "1", "CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise UserError(f"{stage}: {last}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _lower(
    config: str,
    overrides: list[str],
    network: str,
    batch: int,
    repeats_divisor: int,
    output: str,
) -> dict[str, Any]:
    from proofs import lowering
    from training.job import model_spec

    experiment = load_experiment(config, overrides=overrides)
    lowered = (
        lowering.lower_project(experiment, batch, repeats_divisor)
        if network == "project"
        else lowering.lower_keras_applications(experiment, batch)
    )
    Path(output).write_text(lowered.module)
    return {
        "recipe": experiment.name,
        "model": model_spec(experiment).name,
        "task": experiment.task.name,
        "image_size": lowered.image_size,
        "state_bytes": lowered.state_bytes,
        "extrapolation": lowered.extrapolation,
    }


def _compile(module: str, topology: str) -> dict[str, Any]:
    from proofs.ahead_of_time import compile_module

    return compile_module(Path(module).read_text(), topology)


def _provenance() -> dict[str, str]:
    packages = ("tensorflow-tpu", "libtpu", "jax", "keras")
    return {
        "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
        "commit": commit(),
        "versions": ", ".join(f"{name} {version(name)}" for name in packages),
    }


# -- the page -----------------------------------------------------------------------------------


def merge_records(
    records: Sequence[dict[str, Any]], newer: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Merge records in a fixed order; newer ones replace those of the same step."""
    keys = (*(field.name for field in dataclasses.fields(CompiledStep)), "topology")
    by_step = {
        (*(({"model": ""} | record)[key] for key in keys), str(record.get("blocks", ""))): record
        for record in [*records, *newer]
    }
    return [by_step[step] for step in sorted(by_step)]


HEADER = (
    "recipe", "network", "px", "batch", "topology", "compiles", "arguments + temporaries", "of HBM",
    "GFLOP an image", "MB an image", "of keras.applications", "roofline step", "images/s a chip",
)  # fmt: skip


def table_lines(records: Sequence[dict[str, Any]]) -> list[str]:
    """Render each step's memory and least time as a Markdown table."""
    lines = [_line(HEADER), _line(["---"] * len(HEADER))]
    for record in records:
        topology = parse_topology(record["topology"])
        cells = [
            record["recipe"],
            record["network"],
            str(record["image_size"]),
            str(record["per_replica_batch"]),
            record["topology"],
        ]
        if not record["compiles"]:
            lines.append(_line([*cells, f"no: {record['error'][:200]}", *[""] * 7]))
            continue
        outlook = roofline(record, topology)
        bytes_of_chip = topology.chip.hbm_bytes / topology.chip.replicas
        lines.append(
            _line(
                [
                    *cells,
                    f"{_extent(record)}, {record['compile_seconds']:.0f} s",
                    f"{outlook.hbm_bytes / 1e9:.2f} GB",
                    f"{outlook.hbm_bytes / bytes_of_chip:.0%}",
                    f"{outlook.flops_per_image / 1e9:.2f}",
                    f"{outlook.bytes_per_image / 1e6:.0f}",
                    _share(record, records),
                    f"{outlook.step_seconds * 1e3:.1f} ms",
                    f"{outlook.images_per_second:,.0f}",
                ]
            )
        )
    return lines


def _extent(record: dict[str, Any]) -> str:
    """Return "yes", or which part was compiled of a network whose figures are extrapolated."""
    if "blocks" not in record:
        return "yes"
    compiled, whole = record["blocks"]
    return f"{compiled} of {whole} blocks, extrapolated"


def _share(record: dict[str, Any], records: Sequence[dict[str, Any]]) -> str:
    """Compare bytes per image with keras.applications' step of the same size on the same chips."""
    same = ("recipe", "image_size", "per_replica_batch", "topology")
    for other in records:
        if (
            other["network"] == "keras.applications"
            and other["compiles"]
            and all(other[key] == record[key] for key in same)
        ):
            return f"{record['bytes_accessed'] / other['bytes_accessed']:.0%}"
    return ""


def hours_lines(records: Sequence[dict[str, Any]], slices: Sequence[int]) -> list[str]:
    """Render the hours of training on ImageNet at the roofline, by number of chips.

    Recipes of other tasks, whose data are others, have no line.
    """
    header = ["recipe", "px", "batch", "chips", *(f"{epochs} epochs" for epochs in EPOCHS)]
    lines = [_line(header), _line(["---"] * len(header))]
    for record in records:
        if record["network"] != "project" or not record["compiles"]:
            continue
        if record.get("task", "classification") != "classification":
            continue
        topology = parse_topology(record["topology"])
        outlook = roofline(record, topology)
        for chips in slices:
            hours = [f"{outlook.hours(epochs, chips):.2f} h" for epochs in EPOCHS]
            recipe = record["recipe"] + (" (extrapolated)" if "blocks" in record else "")
            step = [recipe, record["image_size"], record["per_replica_batch"]]
            name = f"{chips} ({topology.chip.slice_name(chips)})"
            lines.append(_line([*map(str, step), name, *hours]))
    return lines if len(lines) > 2 else []


def chip_lines() -> list[str]:
    """Render the chips' figures and their sources."""
    header = ("chip", "bfloat16 peak", "HBM", "bandwidth", "replicas", "source")
    lines = [_line(header), _line(["---"] * len(header))]
    for chip in CHIPS.values():
        cells = [
            chip.name,
            f"{chip.peak_flops / 1e12:.0f} TFLOP/s",
            f"{chip.hbm_bytes / 1e9:.0f} GB",
            f"{chip.hbm_bytes_per_second / 1e9:.0f} GB/s",
            str(chip.replicas),
            chip.source,
        ]
        lines.append(_line(cells))
    return lines


def provenance_lines(records: Sequence[dict[str, Any]]) -> list[str]:
    """List the date, commit and versions of each row's measurement."""
    sources: dict[str, list[str]] = {}
    for record in records:
        when = f"{record['date']}, commit {record['commit']}, {record['versions']}"
        row = f"{record['recipe']} ({record['network']}, {record['per_replica_batch']}) {record['topology']}"
        sources.setdefault(when, []).append(row)
    return [f"- {when}: {'; '.join(rows)}" for when, rows in sources.items()]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


PAGE = """# Compiled for TPUs, without one

`python -m proofs.tpu_compile` writes this page; `--help` describes how. Nothing here was run on a
TPU: libtpu's compiler compiled the whole training step of one replica, and its figures for memory,
arithmetic and traffic are compared with the chips' limits. The step time is a lower bound, so images per
second are an upper one and hours a lower one. Of a network that is marked as extrapolated only some blocks
were compiled: its FLOPs grow from theirs as the multiply-adds do, its traffic and temporaries as the bytes
of the activations.

{table}

Hours on ImageNet's 1,281,167 images at the roofline, if the input keeps up:

{hours}

## Chips

{chips}

A replica is a core up to v3, where memory, peak and bandwidth are shared by two, and a chip from v4 on.

## Measured

{provenance}
"""


def write_page(
    file: Path, kept: Path, records: Sequence[dict[str, Any]], slices: Sequence[int]
) -> None:
    """Write the records to `kept`, and the page `file` from them."""
    page = PAGE.format(
        table="\n".join(table_lines(records)),
        hours="\n".join(hours_lines(records, slices)),
        chips="\n".join(chip_lines()),
        provenance="\n".join(provenance_lines(records)),
    )
    write_text(str(kept), json.dumps(list(records), indent=1) + "\n")
    write_text(str(file), page)


# -- the command --------------------------------------------------------------------------------


@command("proofs.tpu_compile")
def main(argv: Sequence[str] | None = None) -> int:
    """Compile and print; return the exit status, 1 if a step does not compile."""
    quiet_tensorflow()
    flags = _parser().parse_args(argv)
    if flags.stage:
        task = json.loads(flags.task)
        print(json.dumps(_lower(*task) if flags.stage == "lower" else _compile(*task)))
        return 0
    topologies = [parse_topology(text) for text in flags.topology.split(",")]
    load_experiment(flags.config, overrides=flags.set)
    networks = flags.network.split(",")
    unknown = [name for name in networks if name not in NETWORKS]
    if unknown:
        raise UsageError(f"--network={unknown[0]}: expected one or more of {', '.join(NETWORKS)}")
    if flags.repeats_divisor > 1 and networks != ["project"]:
        raise UsageError(
            f"--repeats_divisor={flags.repeats_divisor}: only a part of --network=project can be compiled"
        )
    missing = [name for name in ("jax", "libtpu") if not importlib.util.find_spec(name)]
    if missing:
        raise UserError(
            f"{missing[0]} is not installed here; python -m venv .venv-compile && "
            ".venv-compile/bin/pip install -r requirements-compile.txt, then run it with that Python"
        )
    records = json.loads(flags.records.read_text()) if flags.records.exists() else []
    newer: list[dict[str, Any]] = []
    for network in networks:
        newer += measure(
            flags.config,
            flags.set,
            network,
            flags.per_replica_batch,
            topologies,
            flags.repeats_divisor,
        )
        if flags.output:
            write_page(flags.output, flags.records, merge_records(records, newer), flags.chips)
    print("\n".join([*table_lines(newer), "", *hours_lines(newer, flags.chips)]).rstrip())
    return 0 if all(record["compiles"] for record in newer) else 1


def _parser() -> Parser:
    parser = Parser("proofs.tpu_compile", __doc__)
    parser.add_argument("--config", default="configs/efficientnet_b0.yaml", help="experiment")
    parser.add_argument(
        "--set", action="append", default=[], help="override a field: section.field=value"
    )
    parser.add_argument(
        "--topology", default="v5e:2x2", help="one or more, such as v5e:2x2,v4:2x2x1"
    )
    parser.add_argument("--network", default="project", help=f"one or more of {','.join(NETWORKS)}")
    parser.add_argument(
        "--per_replica_batch", type=positive, default=64, help="images per replica and step"
    )
    parser.add_argument(
        "--repeats_divisor",
        type=positive,
        default=1,
        help="compile this part of each stage's blocks, rounded up, and extrapolate",
    )
    parser.add_argument(
        "--chips", type=positives, default=(8, 32, 128), help="slice sizes to plan for"
    )
    parser.add_argument("--output", type=Path, help="page to write from all records")
    parser.add_argument(
        "--records", type=Path, default=COMPILE_REPORT, help="JSON of all records, for --output"
    )
    parser.add_argument("--stage", choices=("lower", "compile"), help=SUPPRESS)
    parser.add_argument("--task", help=SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
