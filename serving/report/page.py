"""Write a report from the files in a run's folder."""

import base64
import datetime
import posixpath
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jinja2
import numpy as np
import tensorflow as tf

from configs.load import load_experiment
from configs.schema import Experiment
from input_pipeline.sources.dataset_info import DatasetInfo, read_dataset_info
from run_folder.experiment import run_experiment_file
from run_folder.logs import METRICS, TIMES, read_log
from run_folder.results import Results, read_results
from run_folder.starts import Start, read_starts
from serving.export import load_trained_network
from serving.network import NoRunError
from serving.report import charts, timing
from serving.report.charts import Chart
from serving.report.mistakes import Mistakes, find_mistakes
from system.console import log
from system.errors import first_line
from system.files import write_text
from training.plan import Plan, format_stage, make_plan

FILE = "report.html"
TEMPLATE = Path(__file__).with_name("template.html")
PREDICTIONS = "predictions.png"
PICTURE_SIDE, SHEET_SIDE = (
    320,
    1600,
)  # pixels of the longer side of a mistake, and of the predictions
MOST_CLASSES = 1000  # rows of the table of classes

PagePart = TypeVar("PagePart")


class ShownMistake(NamedTuple):
    """A mistake on the page: data URIs of its pictures, and its caption."""

    pictures: list[str]
    number: int
    caption: str


class ClassTable(NamedTuple):
    """Figures of each class, formatted, the worst class first."""

    columns: list[str]
    rows: list[tuple[str, list[str]]]
    num_classes: int


def write_report(model_dir: str) -> str:
    """Write MODEL_DIR/report.html from what is in the folder, and return its path.

    A part that cannot be made, such as the mistakes when the images are deleted, is left out; the page and
    the log say why.

    Args:
      model_dir: folder of the run, local or gs://.

    Raises:
      NoRunError: there is no run in the folder.
      DatasetError: its dataset_info.json cannot be read.
      OSError: the page cannot be written.
    """
    file = run_experiment_file(model_dir)
    if file is None:
        raise NoRunError(model_dir)
    experiment, info = load_experiment(file), read_dataset_info(model_dir)
    parts = _Parts()
    content = _content(model_dir, experiment, info, parts)
    with tf.io.gfile.GFile(file) as stream:
        page = _template().render(**content, yaml=stream.read(), notes=parts.notes)
    path = posixpath.join(model_dir, FILE)
    write_text(path, page)
    return path


class _Parts:
    """Makes parts of a page, and notes why a part could not be made."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def __call__(self, name: str, make: Callable[[], PagePart]) -> PagePart | None:
        """Return what `make` returns; None after any error."""
        try:
            return make()
        except Exception as error:  # the page is useful without this part
            self.notes.append(f"{name}: {first_line(error)}")
            log(f"report: {self.notes[-1]}")
            return None


def _content(
    model_dir: str, experiment: Experiment, info: DatasetInfo, part: _Parts
) -> dict[str, Any]:
    """Return the variables of the template."""
    plan = make_plan(experiment, info.splits["train"].num_examples)
    results = part("evaluation", lambda: read_results(model_dir))
    metrics, times = read_log(model_dir, METRICS), read_log(model_dir, TIMES)
    names = info.shown_names
    stages = [(stage.first_step, f"stage {stage.number + 1}") for stage in plan.stages[1:]]
    best_step, starts = results.step if results else None, read_starts(model_dir)
    mistakes = part("mistakes", lambda: _mistakes(model_dir))
    return {
        "experiment": experiment,
        "info": info,
        "split": experiment.data.eval_split,
        "written": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "tiles": _tiles(plan, info, results, metrics, times),
        "stages": _stage_rows(experiment, plan),
        "curves": part("curves", lambda: charts.curves(metrics, stages, best_step)) or [],
        "time": part("time", lambda: _time_chart(times)),
        "speed": part("speed", lambda: charts.speed(times, stages)) or [],
        "confusion": part("confusion", lambda: _confusion_chart(results, names)),
        "classes": part("classes", lambda: _class_table(results, names)),
        "mistakes": mistakes,
        "shown": part("pictures", lambda: _shown_mistakes(mistakes)) or [],
        "predictions": part("predictions", lambda: _predictions(model_dir)),
        "starts": starts,
        "versions": _versions(starts),
    }


def find_report(model_dir: str) -> str | None:
    """Return the path of the report in the folder of a run; None if there is none."""
    path = posixpath.join(model_dir, FILE)
    return path if tf.io.gfile.exists(path) else None


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8"))


def _tiles(
    plan: Plan,
    info: DatasetInfo,
    results: Results | None,
    metrics: Sequence[Any],
    times: Sequence[Any],
) -> list[tuple[str, str]]:
    """Return the figures at the top of the page: (name, value)."""
    step = max((row["step"] for row in metrics), default=0)
    seconds, speed = sum(row["seconds"] for row in times), timing.images_per_second(times)
    tiles = list(results.shown.items()) if results else []
    tiles += [("best checkpoint", plan.name_step(results.step))] if results else []
    tiles += [
        ("steps", f"{step:,} of {plan.total_steps:,}"),
        ("epochs", f"{plan.epochs_at(step):.1f}"),
        ("training images", f"{info.splits['train'].num_examples:,}"),
    ]
    tiles += [("evaluated images", f"{results.num_examples:,}")] if results else []
    tiles += [("time", str(datetime.timedelta(seconds=round(seconds))))] if seconds else []
    return tiles + ([("images per second", f"{speed:.4g}")] if speed else [])


def _stage_rows(experiment: Experiment, plan: Plan) -> list[tuple[int, str, str]]:
    """Return number, steps and settings of each stage; empty for a training without stages."""
    return [
        (stage.number + 1, f"{stage.first_step} to {stage.end_step}", format_stage(overlay))
        for stage, overlay in zip(plan.stages, experiment.stages, strict=False)
    ]


def _time_chart(times: Sequence[Any]) -> Chart | None:
    return charts.time_spent(timing.seconds_by_part(times)) if times else None


def _confusion_chart(results: Results | None, names: Sequence[str]) -> Chart | None:
    if results is None or results.confusion is None:
        return None
    return charts.confusion_matrix(results.confusion, names)


def _class_table(results: Results | None, names: Sequence[str]) -> ClassTable | None:
    """Format the figures of each class, sorted by the first share, the worst class first."""
    if results is None or not results.per_class:
        return None
    figures = results.per_class
    shares = [values for values in figures.values() if values.dtype.kind == "f"]
    order = np.argsort(shares[0], kind="stable") if shares else np.arange(len(names))
    return ClassTable(
        list(figures),
        [
            (names[index], [_format(values[index]) for values in figures.values()])
            for index in order[:MOST_CLASSES]
        ],
        len(names),
    )


def _format(value: np.generic) -> str:
    if isinstance(value, np.integer):
        return f"{value:,}"
    return "" if np.isnan(value) else f"{value:.1%}"


def _mistakes(model_dir: str) -> Mistakes:
    return find_mistakes(load_trained_network(model_dir, None))


def _shown_mistakes(mistakes: Mistakes | None) -> list[ShownMistake]:
    shown = []
    for mistake in mistakes.worst if mistakes else []:
        pictures = [_picture(picture, PICTURE_SIDE) for picture in mistake.pictures]
        shown.append(ShownMistake(pictures, mistake.number, mistake.caption))
    return shown


def _predictions(model_dir: str) -> str | None:
    """Return the picture of predictions that some tasks draw at the end of a training; None without it."""
    path = posixpath.join(model_dir, PREDICTIONS)
    if not tf.io.gfile.exists(path):
        return None
    with tf.io.gfile.GFile(path, "rb") as file:
        return _picture(tf.io.decode_png(file.read(), channels=3).numpy(), SHEET_SIDE)


def _picture(image: np.ndarray, longest: int) -> str:
    """Return uint8 [H, W, 3] as a data URI, at most `longest` pixels a side."""
    height, width = image.shape[:2]
    scale = min(longest / max(height, width), 1.0)
    if scale < 1:
        size = [round(height * scale), round(width * scale)]
        image = tf.cast(tf.round(tf.image.resize(image, size, "area")), tf.uint8)
        encoded, kind = tf.io.encode_jpeg(image, quality=90), "jpeg"
    else:
        encoded, kind = tf.io.encode_png(image), "png"
    return f"data:image/{kind};base64,{base64.b64encode(encoded.numpy()).decode('ascii')}"


def _versions(starts: Sequence[Start]) -> list[tuple[str, str]]:
    """Return commit and versions of the last start: (name, value)."""
    if not starts:
        return []
    return [("commit", starts[-1].commit), *starts[-1].versions.items()]
