"""Print the results of a command: metrics, confusions, and paths of the files of a run."""

from collections.abc import Mapping, Sequence

import numpy as np
from rich.table import Table

from system.console import console, log
from training.diagnosis.nonfinite import Diagnosis, Incident
from training.loop import Measured, Outcome

MOST_CONFUSIONS = 5  # number of pairs of classes listed
MOST_CLASSES_SHOWN = 12  # with at most this many, the whole matrix is printed
LARGEST_COUNT_SHOWN = 99_999  # larger ones, of pixels, are given as shares


def print_outcome(model_dir: str, outcome: Outcome, files: Mapping[str, str]) -> None:
    """Print the metrics of a training run and the paths of its files, with those of `files` by name."""
    if outcome.measured:
        print_evaluation(outcome.measured)
    elif outcome.best and outcome.best_figure:
        log(f"best: {outcome.best_figure} at step {outcome.best.step}")
    places = Table(title="where things are", show_header=False, title_justify="left")
    best = outcome.best.path if outcome.best else f"{model_dir}/checkpoints"
    for what, where in {
        "experiment": f"{model_dir}/experiment.yaml",
        "best checkpoint": best,
        "figures": f"{model_dir}/metrics.jsonl",
        "curves and pictures": f"tensorboard --logdir={model_dir}/tensorboard",
        **({"predictions": outcome.pictures} if outcome.pictures else {}),
        **files,
    }.items():
        places.add_row(what, where, style=None)
    console.print(places, markup=False)


def print_exports(exports: Mapping[str, str]) -> None:
    """Print the path of each exported format."""
    for what, where in exports.items():
        log(f"{what}: {where}")


def print_evaluation(measured: Measured) -> None:
    """Print the metrics of one checkpoint and the classes that it confuses."""
    step, evaluation, class_names = measured
    table = Table(
        title=f"{step} on {evaluation.num_examples:,} held-out images",
        title_justify="left",
    )
    for column in evaluation.shown:
        table.add_column(column, justify="right")
    table.add_row(*evaluation.shown.values())
    console.print(table)
    _print_of_classes(evaluation.figures, class_names)
    confusion = evaluation.sums.get("confusion")
    if confusion is not None:
        names = class_names or [str(i) for i in range(len(confusion))]
        _print_confusion(confusion, names)


def print_diagnosis(incident: Incident, diagnosis: Diagnosis) -> None:
    """Print a replayed step: weights, activations and gradients of every layer."""
    table = Table(
        title=f"step {incident.step}: largest magnitude, or how many values are not finite",
        title_justify="left",
    )
    table.add_column("layer", no_wrap=True)
    for column in ("weights", "activations", "gradient of them", "gradient of the weights"):
        table.add_column(column, justify="right")
    for layer in diagnosis.layers:
        summaries = (layer.weights, layer.activations, layer.gradients, layer.weight_gradients)
        table.add_row(layer.name, *(str(summary) if summary.size else "" for summary in summaries))
    console.print(table, markup=False)
    log(f"loss {diagnosis.loss:g} on {incident.examples()}; {diagnosis.first()}")


def _print_of_classes(figures: Mapping[str, float], class_names: Sequence[str] | None) -> None:
    """Print the figures of single classes, whose names are FIGURE/NUMBER."""
    found = [
        (name.partition("/")[0], int(name.partition("/")[2])) for name in figures if "/" in name
    ]
    if not found:
        return
    columns = dict.fromkeys(name for name, _ in found)
    table = Table(title="by class", title_justify="left")
    table.add_column("class")
    for column in columns:
        table.add_column(column, justify="right")
    for number in sorted({number for _, number in found}):
        values = [figures.get(f"{column}/{number}") for column in columns]
        name = class_names[number] if class_names else str(number)
        table.add_row(name, *("" if value is None else f"{value:.2%}" for value in values))
    console.print(table, markup=False)


def _print_confusion(confusion: np.ndarray, names: Sequence[str]) -> None:
    if len(names) <= MOST_CLASSES_SHOWN:
        cells, what = _confusion_cells(confusion)
        title = f"confusion{what}: rows true, columns predicted"
        table = Table(title=title, title_justify="left")
        for column in ["", *names]:
            table.add_column(column, justify="right")
        for name, row in zip(names, cells, strict=True):
            table.add_row(name, *row)
        console.print(table)
    wrong = confusion - np.diag(np.diag(confusion))
    worst = [divmod(int(i), len(names)) for i in np.argsort(-wrong, axis=None)[:MOST_CONFUSIONS]]
    pairs = [f"{names[t]} taken for {names[p]}: {wrong[t, p]:,}" for t, p in worst if wrong[t, p]]
    log("most confused: " + ("; ".join(pairs) or "none"))


def _confusion_cells(confusion: np.ndarray) -> tuple[list[list[str]], str]:
    """Return the cells of a table and what they are: counts, or of many pixels percent of the true class."""
    if confusion.max(initial=0) <= LARGEST_COUNT_SHOWN:
        return [[str(n) if n else "." for n in row] for row in confusion], ""
    shares = 100 * confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    return [[f"{share:.0f}" if share else "." for share in row] for row in shares], ", %"
