"""Measure a whole training step: this project's, keras.applications' with `fit`, and timm's.

    python -m benchmarks.training [--torch_python=PATH] [--output=benchmarks/results/training.md]

trains each network on batches of noise in memory: forward, loss with label smoothing and weight decay,
gradient, RMSProp with momentum, and moving average of the weights, in float32 on the CPU. Each side runs in a
process of its own, in turns, and is compared within a round. timm runs under --torch_python, an interpreter
with torch and timm:

    python -m venv torchenv && torchenv/bin/pip install torch timm

Without it, and without both in this interpreter, timm is left out.
"""

import dataclasses
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.children import SUBJECTS, Subject, take_turns
from benchmarks.ratios import ratio_interval
from benchmarks.turn_server import Turn
from system.command import Parser, command, positive
from system.conditions import conditions
from system.errors import UserError, first_line
from system.files import write_text

OURS, KERAS, TIMM = "this project", "keras.applications, fit", "timm"
STEPS_PER_TURN = 4


@dataclasses.dataclass(frozen=True)
class BenchmarkNetwork:
    """A network to train."""

    model: str
    image_size: int  # pixels
    batch: int

    @property
    def title(self) -> str:
        """As the page's heading names it."""
        return f"{self.model}, {self.image_size} px, batch {self.batch}"


NETWORKS = (
    BenchmarkNetwork("efficientnet-b0", 224, 16),
    BenchmarkNetwork("efficientnet-b2", 260, 8),
)


def measure(
    network: BenchmarkNetwork, torch_python: str | None, rounds: int
) -> dict[str, list[Turn]]:
    """Measure every side in turns; timm only with an interpreter for it.

    Raises:
      ChildError: one of them failed.
    """
    settings = dataclasses.asdict(network) | {"steps": STEPS_PER_TURN}
    subjects = {
        OURS: Subject(SUBJECTS / "project.py", "training_step", settings),
        KERAS: Subject(SUBJECTS / "keras_fit.py", "training_step", settings),
    }
    if torch_python:
        timm_file = SUBJECTS / "timm_loop.py"
        subjects[TIMM] = Subject(timm_file, "training_step", settings, python=torch_python)
    return take_turns(subjects, rounds)


def torch_versions(python: str) -> str:
    """Return the versions of torch and timm of an interpreter: `torch 2.13.0, timm 1.0.31`.

    Raises:
      UserError: it has not both, or is no interpreter.
    """
    program = "import timm, torch; print(f'torch {torch.__version__}, timm {timm.__version__}')"
    try:
        done = subprocess.run(
            [python, "-P", "-c", program], capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise UserError(f"--torch_python={python}: {first_line(error)}") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(
            f"--torch_python={python}: {last}; give an interpreter that has torch and timm"
        )
    return done.stdout.strip()


# -- the page -----------------------------------------------------------------------------------

HEADER = (
    "", "images/s", "processor s / image", "peak memory, MiB", "images/s, ours to this",
    "processor s, ours to this",
)  # fmt: skip

PAGE = """# A training step

`python -m benchmarks.training --output=benchmarks/results/training.md` writes this page.
{conditions}{torch}.

Forward, loss (label smoothing 0.1, weight decay 1e-5), gradient, RMSProp (momentum 0.9) and moving average of
the weights (0.9999), float32, on batches of noise in memory. This project: the training loop of `main.py`,
{steps} steps a call. keras.applications: `fit` of {steps} steps, RMSprop with use_ema, jit_compile=False.
timm: eager, RMSpropTF, ModelEmaV2, channels_last. {timm}

Each side runs in a process of its own, {rounds} rounds of {steps} steps in turns. Figures are medians; ratios
are medians of the ratios within a round, with their 95 % interval. Above 1 in images/s and below 1 in
processor seconds, this project is the faster. Peak memory is that of the process, with its libraries.

{tables}
"""


def page(
    results: Mapping[BenchmarkNetwork, Mapping[str, Sequence[Turn]]],
    conditions: str,
    torch: str | None,
) -> str:
    """Render the page of results.

    Args:
      results: the turns of each side, for each network.
      conditions: date, commit and hardware.
      torch: versions of torch and timm; None: timm was not measured.
    """
    rounds = min(len(turns) for sides in results.values() for turns in sides.values())
    tables = [
        f"## {network.title}\n\n" + "\n".join(table_lines(sides))
        for network, sides in results.items()
    ]
    return PAGE.format(
        conditions=conditions,
        torch=f", {torch}" if torch else "",
        steps=STEPS_PER_TURN,
        timm="" if torch else "timm was not measured: torch and timm were not installed.",
        rounds=rounds,
        tables="\n\n".join(tables),
    )


def table_lines(sides: Mapping[str, Sequence[Turn]]) -> list[str]:
    """Render one network's table in Markdown; ratios are of this project to each other side."""
    rows: list[Sequence[str]] = [HEADER, ["---", *["---:"] * (len(HEADER) - 1)]]
    ours = sides[OURS]
    for name, turns in sides.items():
        ratios = ["", ""]
        if name != OURS:
            ratios = [str(ratio_interval(_speeds(ours), _speeds(turns)))]
            ratios.append(str(ratio_interval(_processor(ours), _processor(turns))))
        rows.append(
            [
                name,
                f"{np.median(_speeds(turns)):.1f}",
                f"{np.median(_processor(turns)):.4f}",
                f"{turns[-1].peak_mib:.0f}",
                *ratios,
            ]
        )
    return [f"| {' | '.join(cells)} |" for cells in rows]


def _speeds(turns: Sequence[Turn]) -> np.ndarray:
    return np.array([turn.images_per_second for turn in turns])


def _processor(turns: Sequence[Turn]) -> np.ndarray:
    return np.array([turn.processor_s_per_image for turn in turns])


# -- the command --------------------------------------------------------------------------------


@command("benchmarks.training")
def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; write the page where asked."""
    parser = Parser("benchmarks.training", __doc__)
    parser.add_argument("--rounds", type=positive, default=12, help="turns of every side")
    parser.add_argument("--torch_python", help="interpreter with torch and timm [this one]")
    parser.add_argument("--output", type=Path, help="file to write the page to")
    flags = parser.parse_args(argv)
    torch_python = flags.torch_python or sys.executable
    try:
        torch: str | None = torch_versions(torch_python)
    except UserError:
        if flags.torch_python:
            raise
        torch = None
    results = {}
    for network in NETWORKS:
        results[network] = measure(network, torch_python if torch else None, flags.rounds)
        print("\n".join([network.title, *table_lines(results[network])]), flush=True)
    if flags.output:
        write_text(str(flags.output), page(results, conditions("keras"), torch))
    return 0


if __name__ == "__main__":
    sys.exit(main())
