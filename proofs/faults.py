"""Kill a training run repeatedly and check that nothing is lost.

    python -m proofs.faults [--config=proofs/faults.yaml] [--kills=50] [--workers=1] [--seed=0]
        [--folder=DIR] [--output=proofs/results/faults.md]

trains a small network twice with main.py: once undisturbed, and once with `kill -9` at random moments
within a step, a checkpoint's write, an evaluation and an export, restarted with the same command each time.
The training has stages, of different image sizes and batches: kills hit all of them, the switch from one
to the next, and the first step after it. faults_v2.yaml is a small EfficientNetV2 by progressive learning.
Then it compares, bit for bit, weights, optimizer, averages, metrics, metrics.jsonl, TensorBoard's curves
and the exported model. With --workers=2 two processes train together and one of them is killed.

To time the kills, main.py runs with its parts wrapped to announce when they begin; nothing else is changed.
Every process is forked from one that has only imported TensorFlow, which saves a third of the start-up time.
A kill that arrives after its target part has ended is counted as "between parts".
"""

import collections
import contextlib
import dataclasses
import functools
import json
import multiprocessing.connection
import multiprocessing.context
import multiprocessing.forkserver
import os
import queue
import random
import runpy
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from configs.load import load_experiment, stage_experiments
from configs.schema import Experiment
from system.command import Parser, command
from system.conditions import ROOT, conditions
from system.tensorflow_log import quiet_tensorflow
from training.plan import Plan, Stage, make_plan

if TYPE_CHECKING:
    from input_pipeline.sources.dataset_info import DatasetInfo

PLACES = ("step", "checkpoint", "evaluation", "export")
SWITCH = "switch to the next stage"  # its input is opened and its training step traced
FIRST_STEP = "first step after a switch"  # of the first call of the training loop
PLACES_OF_STAGES = (SWITCH, FIRST_STEP)
BETWEEN = "between parts"
NETWORK = ROOT / "proofs/two_blocks.yaml"  # tracing takes most of a process's time
SECONDS_TO_WAIT = 1200.0  # beyond this a process counts as hanging
SECONDS_AFTER_A_KILL = 120.0  # beyond this the other workers do
CONFIG = ROOT / "proofs/faults.yaml"


# -- the run that is killed: main.py, whose parts announce when they begin ----------------------


def announce_and_run(arguments: Sequence[str]) -> None:
    """Run main.py with these flags; print "@PLACE" before each part and "@end of PLACE" after it."""
    import run_folder.checkpoints
    import serving.saved_model
    from training import evaluator, run

    def announced(place: str, part: Callable[..., Any]) -> Callable[..., Any]:
        def announce_and_call(*args: Any, **kwargs: Any) -> Any:
            # One write, newline included: another thread writes the checkpoints.
            print(f"@{place}\n", end="", flush=True)
            result = part(*args, **kwargs)
            print(f"@end of {place}\n", end="", flush=True)
            return result

        return announce_and_call

    enter, make_train_loop = run.Run.enter, run.make_train_loop
    switched = False  # since the last step

    def enter_and_announce(self: run.Run, stage: Stage) -> None:
        nonlocal switched
        switched = stage.number > 0 and self.step == stage.first_step
        (announced(SWITCH, enter) if switched else enter)(self, stage)

    def make_announced_loop(*args: Any, **options: Any) -> Callable[..., Any]:
        loop = make_train_loop(*args, **options)

        def announce_and_train(*args: Any) -> Any:
            nonlocal switched
            place, switched = FIRST_STEP if switched else "step", False
            return announced(place, loop)(*args)

        return announce_and_train

    parts: Any = run
    parts.Run.enter, parts.make_train_loop = enter_and_announce, make_announced_loop
    evaluator.evaluate = announced("evaluation", evaluator.evaluate)
    checkpoints: Any = run_folder.checkpoints
    checkpoints._write_checkpoint = announced("checkpoint", checkpoints._write_checkpoint)
    saved_model: Any = serving.saved_model
    saved_model.write_version = announced("export", saved_model.write_version)
    sys.argv = [str(ROOT / "main.py"), *arguments]
    runpy.run_path(sys.argv[0], run_name="__main__")


def _live(
    output: multiprocessing.connection.Connection,
    arguments: Sequence[str],
    environment: Mapping[str, str],
) -> None:
    """Run main.py in this new process, as if the shell had started it."""
    for descriptor in (1, 2):
        os.dup2(output.fileno(), descriptor)
    output.close()
    os.environ.update(environment)
    announce_and_run(arguments)


@functools.cache
def _forked() -> multiprocessing.context.ForkServerContext:
    """Return a context that forks processes which have already imported what main.py imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["serving.export", "training.eval_loop", "training.diagnosis.nonfinite"]
    )
    # A fork copies the calling thread only, so there must be no other.
    needed = {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    before = {name: os.environ.get(name) for name in needed}
    os.environ.update(needed)
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    return context


class Life:
    """The processes of one start of a run, until they end."""

    def __init__(self, arguments: Sequence[str], workers: int) -> None:
        addresses = _free_addresses(workers)
        pipes = [multiprocessing.Pipe(duplex=False) for _ in range(workers)]
        self.processes = [
            _forked().Process(
                target=_live,
                args=(end, arguments, _worker_environment(addresses, index)),
                daemon=True,  # ends with this process
            )
            for index, (_, end) in enumerate(pipes)
        ]
        for process, (_, end) in zip(self.processes, pipes, strict=True):
            process.start()
            end.close()
        self.printed: list[list[str]] = [[] for _ in range(workers)]
        self._places: list[queue.Queue[str]] = [queue.Queue() for _ in range(workers)]
        self._readers = [
            threading.Thread(target=self._read, args=(index, beginning))
            for index, (beginning, _) in enumerate(pipes)
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, index: int, connection: multiprocessing.connection.Connection) -> None:
        with connection, open(connection.fileno(), errors="replace", closefd=False) as stream:
            for line in stream:
                self.printed[index].append(line)
                if line.startswith("@"):
                    self._places[index].put(line.strip("@\n"))
        self._places[index].put("")

    def places(self, index: int = 0) -> Iterator[str]:
        """Yield what a process, by default the chief, announces until it ends."""
        while place := self._places[index].get(timeout=SECONDS_TO_WAIT):
            yield place

    def kill(self, index: int) -> None:
        """Kill one process with SIGKILL; wait for the others and kill those that hang."""
        self.processes[index].kill()
        self.end(SECONDS_AFTER_A_KILL)

    def end(self, seconds: float = SECONDS_TO_WAIT) -> list[int | None]:
        """Wait for each process and kill it when it hangs; return their exit statuses."""
        for process in self.processes:
            process.join(seconds)
            if process.exitcode is None:
                process.kill()
                process.join()
        for reader in self._readers:
            reader.join()
        return [process.exitcode for process in self.processes]

    def is_in(self, place: str) -> bool:
        """Return whether the chief has announced the start of `place` but not yet its end."""
        announced = [line.strip("@\n") for line in self.printed[0]]
        found = [line for line in announced if line in (place, f"end of {place}")]
        return found[-1:] == [place]

    def output(self) -> str:
        """Return everything that was printed."""
        return "".join(line for lines in self.printed for line in lines)


def _free_addresses(count: int) -> list[str]:
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]


def _worker_environment(addresses: list[str], index: int) -> dict[str, str]:
    if len(addresses) == 1:
        return {}
    task = {"type": "worker", "index": index}
    return {"TF_CONFIG": json.dumps({"cluster": {"worker": addresses}, "task": task})}


# -- killing ------------------------------------------------------------------------------------


@dataclasses.dataclass
class Toll:
    """Count of kills by place, by stage and by process, and what they damaged."""

    batches: list[int] = dataclasses.field(default_factory=list)  # of the stages
    kills: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    stages: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    victims: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    resumes: int = 0
    differences: list[str] = dataclasses.field(default_factory=list)
    bytes_lost: int = 0

    def __str__(self) -> str:
        return (
            f"kills {self.kills.total()}, resumes {self.resumes}, "
            f"differences {len(self.differences)}, bytes lost {self.bytes_lost}"
        )


def make_aims(kills: int, stages: int) -> list[str]:
    """Return the places to kill in, in order, for a training in `stages`.

    The export comes last. Each switch and the first step after it get at least one kill, and the stages
    share the others evenly.
    """
    switches = stages - 1
    at_switch = max(kills // (10 * max(switches, 1)), 1)
    in_export = max((kills - 2 * switches) // 5, 1)
    others = kills - in_export - 2 * at_switch * switches
    aims: list[str] = []
    for stage in range(stages):
        if stage:
            aims += [SWITCH] * at_switch + [FIRST_STEP] * at_switch
        share = range(others * stage // stages, others * (stage + 1) // stages)
        aims += [PLACES[number % 3] for number in share]
    return aims + ["export"] * in_export


def fewest_kills(stages: int) -> int:
    """Return the number of kills that `make_aims` needs to reach every place."""
    return len(PLACES) + 2 * (stages - 1)


def survive(
    folder: Path,
    *,
    config: Path = CONFIG,
    aims: Sequence[str],
    workers: int = 1,
    seed: int = 0,
    log: Callable[[str], None] = lambda line: None,
) -> Toll:
    """Train undisturbed and with kills in `folder`, and compare.

    Args:
      folder: an empty folder.
      config: experiment, whose duration the number of kills decides.
      aims: places to kill in, in order: exports last, switches not before the steps of earlier stages.
      workers: processes that train together; one of them is killed at a time.
      seed: of the random moments of the kills.
      log: called with a line for each kill.

    Raises:
      RuntimeError: a run that was not killed failed; the message is what it printed.
    """
    moments, toll, remaining = random.Random(seed), Toll(), list(aims)
    # Three kills in a row take up to eight steps of a stage; few kills need two evaluations.
    given = [f"--config={config}", f"--set=train.duration={8 * max(2 * len(aims), 12)} examples"]
    undisturbed, killed = folder / "undisturbed", folder / "killed"
    arguments = [*given, *(["--strategy=multi_worker"] if workers > 1 else [])]
    seconds = _undisturbed([*arguments, f"--model_dir={undisturbed}"], workers)
    plan, best_metric = _plan_of(undisturbed), _best_metric_of(undisturbed)
    toll.batches = [stage.global_batch_size for stage in plan.stages]
    arguments.append(f"--model_dir={killed}")

    newest, ended = 0, False
    while remaining:
        if remaining[0] in PLACES_OF_STAGES and newest > plan.stages[-1].first_step:
            remaining[0] = "step"  # an earlier kill came too late, and no switch is left
        aim = "export" if ended else remaining[0]
        # A run that has ended is exported again, by one process.
        again = [*given, f"--model_dir={killed}", "--mode=export"]
        life = Life(again, 1) if ended else Life(arguments, workers)
        place, victim = _kill(life, aim, seconds, moments)
        if place != aim:
            seconds[aim] /= 2  # it ended sooner than in the undisturbed run
        if place is None:
            if any(life.end()):
                raise RuntimeError(life.output())
            ended = True
            continue
        if place == aim:
            remaining.pop(0)
        toll.kills[place] += 1
        toll.victims[victim] += 1
        toll.differences += [] if ended else _not_resumed(life, newest)
        newest, lost = _inspect(killed, newest, best_metric)
        toll.bytes_lost += lost
        toll.stages[_stage_of(place, newest, plan)] += 1
        log(
            f"kill {toll.kills.total()}, of process {victim + 1}: {place}; "
            f"newest checkpoint {newest}, {lost} bytes lost"
        )
    life = Life(arguments, workers)
    if any(life.end()):
        raise RuntimeError(life.output())
    toll.differences += _not_resumed(life, newest)
    toll.resumes = toll.kills.total()  # each kill was followed by a start
    toll.differences += differences(killed, undisturbed)
    left = [str(path) for path in killed.rglob("temporary-*")]
    toll.differences += [f"{path} was left behind" for path in left]
    return toll


def _plan_of(model_dir: Path) -> Plan:
    experiment, info = _described(model_dir)
    return make_plan(experiment, info.splits["train"].num_examples)


def _best_metric_of(model_dir: Path) -> str:
    from training.job import make_task

    return make_task(*_described(model_dir)).best


def _described(model_dir: Path) -> tuple[Experiment, "DatasetInfo"]:
    """Return the experiment and the data of a run that has begun."""
    from input_pipeline.sources.dataset_info import read_dataset_info
    from run_folder.experiment import EXPERIMENT_FILE

    return load_experiment(model_dir / EXPERIMENT_FILE), read_dataset_info(str(model_dir))


def _stage_of(place: str, newest: int, plan: Plan) -> str:
    """Return in which stage a run was killed in `place`, when its newest checkpoint is `newest`."""
    if place not in PLACES_OF_STAGES:
        return f"stage {plan.stage_at(newest).number + 1}"
    # The checkpoint at the end of the stage before may not have been written to its end.
    entered = next(stage for stage in plan.stages[1:] if newest <= stage.first_step)
    number = entered.number + 1
    return (
        f"stages {number - 1} and {number}, between them" if place == SWITCH else f"stage {number}"
    )


def _undisturbed(arguments: Sequence[str], workers: int) -> dict[str, float]:
    """Run to the end; return the median seconds of each part, which tracing hardly affects.

    Of a switch and the step after it, half: there are few, so a kill should not come too late, and the first
    half of the call of two steps is its first step.
    """
    life = Life(arguments, workers)
    took: dict[str, list[float]] = collections.defaultdict(list)
    began: dict[str, float] = {}
    for place in life.places():
        ended = place.removeprefix("end of ")
        if ended != place:
            took[ended].append(time.monotonic() - began[ended])
        began[place] = time.monotonic()
    if any(life.end()):
        raise RuntimeError(life.output())
    return {
        place: float(np.median(seconds)) / (2 if place in PLACES_OF_STAGES else 1)
        for place, seconds in took.items()
    }


def _kill(
    life: Life, aim: str, seconds: Mapping[str, float], moments: random.Random
) -> tuple[str | None, int]:
    """Kill a process at a random moment of the first or second `aim`.

    Returns:
      Where the kill hit: `aim`, BETWEEN if that part had ended, or None if the process had. And the number
      of the process.
    """
    wanted = moments.randint(1, 2) if aim in ("step", "checkpoint") else 1
    for found in life.places():
        wanted -= found == aim
        if wanted:
            continue
        # If the part ends first, kill at once, before the checkpoint that would put a switch out of reach.
        moment = time.monotonic() + moments.uniform(0.0, seconds[aim])
        while (left := moment - time.monotonic()) > 0 and life.is_in(aim):
            time.sleep(min(left, 0.005))
        # Only the chief exports.
        victim = 0 if aim == "export" else moments.randrange(len(life.processes))
        inside = life.is_in(aim)
        life.kill(victim)
        if victim == 0:
            inside = life.is_in(aim)  # again, now that all its output is read
        if life.processes[victim].exitcode != -signal.SIGKILL:
            return None, victim
        return aim if inside else BETWEEN, victim
    return None, 0


def _not_resumed(life: Life, newest: int) -> list[str]:
    """Return a line if a start should have resumed from a checkpoint and did not."""
    logged = ("resuming from step", "finished already")
    fine = not newest or any(text in life.output() for text in logged)
    return [] if fine else [f"a start did not resume from step {newest}"]


# -- comparing ----------------------------------------------------------------------------------


def _inspect(model_dir: Path, newest: int, best_metric: str) -> tuple[int, int]:
    """Return the newest valid checkpoint's step, and the bytes in checkpoints that are damaged."""
    from run_folder.checkpoints import CheckpointStore

    store, lost = CheckpointStore(str(model_dir), best_metric=best_metric), 0
    good = [step for step in store.steps() if store.find(step)]
    for step in set(store.steps()) - set(good):
        folder = model_dir / "checkpoints" / f"step_{step:08d}"
        lost += sum(file.stat().st_size for file in folder.iterdir())
    if max(good, default=0) < newest:
        lost += 1  # it was deleted, so its size is unknown
    return max(good, default=0), lost


def differences(ours: Path, theirs: Path) -> list[str]:
    """Return where two finished runs differ, bit for bit; empty if nowhere."""
    from run_folder.checkpoints import CheckpointStore

    found, best_metric = [], _best_metric_of(theirs)
    for kind in ("latest", "best"):
        pair = [
            getattr(CheckpointStore(str(folder), best_metric=best_metric), kind)()
            for folder in (ours, theirs)
        ]
        if None in pair:
            found.append(f"no {kind} checkpoint")
            continue
        if (pair[0].step, pair[0].metrics) != (pair[1].step, pair[1].metrics):
            found.append(f"step or metrics of the {kind} checkpoint")
        found += _different_arrays(kind, pair[0].read(), pair[1].read())
    if rows(ours) != rows(theirs):
        found.append("metrics.jsonl")
    found += [f"curves of {k}" for k in ("train", "eval") if curve(ours, k) != curve(theirs, k)]
    exported = [_exported(folder) for folder in (ours, theirs)]
    if exported[0].keys() != exported[1].keys():
        return [*found, f"exports {sorted(exported[0])} and not {sorted(exported[1])}"]
    for version, arrays in exported[0].items():
        found += _different_arrays(f"export {version}", arrays, exported[1][version])
    return found


def _different_arrays(
    what: str, ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]
) -> list[str]:
    names = sorted(ours.keys() | theirs.keys())
    return [
        f"{what}: {name}"
        for name in names
        if name not in ours
        or name not in theirs
        or np.asarray(ours[name]).tobytes() != np.asarray(theirs[name]).tobytes()
    ]


def rows(model_dir: Path) -> list[dict[str, Any]]:
    """Return the rows of metrics.jsonl."""
    return [json.loads(line) for line in (model_dir / "metrics.jsonl").read_text().splitlines()]


def curve(model_dir: Path, kind: str) -> list[tuple[int, str, bytes]]:
    """Return every point of TensorBoard's curves: step, name, value."""
    import tensorflow as tf

    points = []
    for path in (model_dir / "tensorboard" / kind).glob("events*"):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "scalars":
                    points.append((event.step, value.tag, value.tensor.SerializeToString()))
    return sorted(points)


def _exported(model_dir: Path) -> dict[str, dict[str, np.ndarray]]:
    """Return the variables of every exported SavedModel, by version."""
    import tensorflow as tf

    found = {}
    for version in (model_dir / "export/saved_model").glob("[0-9]*"):
        reader = tf.train.load_checkpoint(str(version / "variables/variables"))
        names = [
            n for n in reader.get_variable_to_shape_map() if n != "_CHECKPOINTABLE_OBJECT_GRAPH"
        ]
        found[version.name] = {name: reader.get_tensor(name) for name in names}
    return found


# -- the command --------------------------------------------------------------------------------


def page(toll: Toll, config: Path, workers: int, seconds: float) -> str:
    """Render the results in Markdown."""
    several = len(toll.batches) > 1
    notes = [f"Images in a batch, stage by stage: {', '.join(map(str, toll.batches))}."]
    if workers > 1:
        counts = [f"{toll.victims[n]} of process {n + 1}" for n in range(workers)]
        notes.append(f"Kills by process: {', '.join(counts)}.")
    places = (*PLACES, *(PLACES_OF_STAGES if several else ()), BETWEEN)
    counted = [(place, toll.kills[place]) for place in places] + sorted(toll.stages.items())
    table = "\n".join(f"| {name} | {count} |" for name, count in counted)
    found = "\n".join(f"- {line}" for line in toll.differences) or "None."
    return (
        f"## {config.name}, {workers} process{'es' if workers > 1 else ''}\n\n"
        f"{conditions()}; {seconds / 60:.0f} min.\n\n{toll}\n\n{' '.join(notes)}\n\n"
        f"| killed in | times |\n|---|---|\n{table}\n\nDifferences: {found}\n"
    )


@command("proofs.faults")
def main(argv: Sequence[str] | None = None) -> int:
    """Kill runs and compare; return the exit status, 1 if something was lost."""
    quiet_tensorflow()
    parser = Parser("proofs.faults", __doc__)
    parser.add_argument("--config", type=Path, default=CONFIG, help="experiment to kill")
    parser.add_argument("--kills", type=int, default=50, help="least number of kills")
    parser.add_argument("--workers", type=int, default=1, help="processes that train together")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--folder", type=Path, help="empty folder for the runs [temporary]")
    parser.add_argument("--output", type=Path, help="Markdown file to append to")
    options = parser.parse_args(argv)
    stages = len(stage_experiments(load_experiment(options.config)))
    fewest = fewest_kills(stages)
    if options.kills < fewest or options.workers < 1:
        parser.error(f"--kills must be at least {fewest} and --workers at least 1")
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        toll = survive(
            folder,
            config=options.config,
            aims=make_aims(options.kills, stages),
            workers=options.workers,
            seed=options.seed,
            log=lambda line: print(line, flush=True),
        )
    print(toll)
    print("\n".join(toll.differences))
    if options.output:
        with options.output.open("a") as file:
            file.write("\n" + page(toll, options.config, options.workers, time.monotonic() - began))
    return 1 if toll.differences or toll.bytes_lost else 0


if __name__ == "__main__":
    sys.exit(main())
