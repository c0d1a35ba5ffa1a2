"""A setting that has no effect is a bug: each field of the schema is read by code outside configs/.

A read is `experiment.train.label_smoothing`, or `train.label_smoothing` where `train` came from
`train = experiment.train` or from a parameter of type `Train` in the same function. So `model.name`
on a Keras model is no read of the experiment's. `own_settings(experiment.optimizer)` reads what the
kinds of the section have of their own.
"""

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path

from configs import schema
from configs.schema import KINDS, Experiment, StageOverlay, section_classes
from configs.sections import Section, own_fields, shared_class

ROOT = Path(__file__).parents[2]
READERS = ("main.py", "training/*.py", "serving/*.py", "benchmarks/*.py")

# Fields that may be without a reader, as "section.field". There is no reason for any.
WITHOUT_READER: frozenset[str] = frozenset()

SECTIONS = section_classes()
FIELDS = {
    f"{name}.{field}"
    for name, classes in SECTIONS.items()
    for section in classes
    for field in section.model_fields
}
FIELDS |= set(Experiment.model_fields) - set(SECTIONS) - {"progressive"}  # it becomes stages
FIELDS |= {f"stages.{field}" for field in StageOverlay.model_fields}

# What `own_settings` reads of a section: {"optimizer": {"optimizer.momentum", ...}, ...}
OWN_FIELDS = {
    name: {f"{name}.{field}" for kind in SECTIONS[name] for field in own_fields(kind)}
    for name in KINDS
}

# The section of each class of the schema: {"Experiment": "", "Train": "train", ...}
PLACE_OF_CLASS = {
    section.__name__: name for name, classes in SECTIONS.items() for section in classes
}
PLACE_OF_CLASS |= {shared_class(SECTIONS[name][0]).__name__: name for name in KINDS}
PLACE_OF_CLASS |= {"Experiment": "", "StageOverlay": "stages", "Progressive": "progressive"}


def reads(source: str) -> set[str]:
    """The fields (`train.duration`, `seed`) that a Python source reads."""
    found: set[str] = set()
    module = ast.parse(source)
    classes = schema_classes(module)
    for scope in (module, *functions(module)):
        known = {"experiment": ""} | (places(scope, classes) if scope is not module else {})
        found |= {place for node in ast.walk(scope) if (place := place_of(node, known))}
        for node in ast.walk(scope):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "own_settings":
                found |= OWN_FIELDS.get(place_of(node.args[0], known) or "", set())
    return found & FIELDS


def functions(module: ast.Module) -> Iterator[ast.AST]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return (node for node in ast.walk(module) if isinstance(node, kinds))


def schema_classes(module: ast.Module) -> dict[str, str]:
    """The classes of the schema as this module writes them, with the section each stands for.

    A bare `Model` counts where it is imported from the schema; elsewhere it may be Keras'.
    """
    imported = {
        name.name
        for node in ast.walk(module)
        if isinstance(node, ast.ImportFrom) and node.module == "configs.schema"
        for name in node.names
    }
    qualified = {f"schema.{name}": place for name, place in PLACE_OF_CLASS.items()}
    return qualified | {name: PLACE_OF_CLASS[name] for name in imported & set(PLACE_OF_CLASS)}


def places(function: ast.AST, classes: dict[str, str]) -> dict[str, str]:
    """Names of a function that hold the experiment ("") or a section of it ("train")."""
    known = {"experiment": ""}
    for node in ast.walk(function):
        if isinstance(node, ast.arg) and node.annotation is not None:
            kind = ast.unparse(node.annotation).strip("'\"").removeprefix("configs.")
            if kind in classes:
                known[node.arg] = classes[kind]
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            for target, value in pairs(node):
                place = place_of(value, known)
                if place is not None and isinstance(target, ast.Name):
                    known[target.id] = place
    return known


def pairs(node: ast.Assign) -> Iterator[tuple[ast.expr, ast.expr]]:
    """`a = x` as (a, x); `a, b = x, y` as (a, x) and (b, y)."""
    for target in node.targets:
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            yield from zip(target.elts, node.value.elts, strict=False)
        else:
            yield target, node.value


def place_of(node: ast.AST, known: dict[str, str]) -> str | None:
    """Which part of the experiment an expression is; None when it is no part of one."""
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if not isinstance(node, ast.Attribute):
        return None
    if node.attr == "experiment":
        return ""  # self.experiment
    above = place_of(node.value, known)
    if above is None:
        return None
    return f"{above}.{node.attr}" if above else node.attr


def test_every_field_of_the_schema_has_a_reader():
    sources = [path for pattern in READERS for path in sorted(ROOT.glob(pattern))]
    read = set().union(*(reads(path.read_text(encoding="utf-8")) for path in sources))
    unread = sorted(FIELDS - read - WITHOUT_READER)
    assert not unread, f"{len(unread)} fields are never read: {', '.join(unread)}"


def test_the_allowance_for_fields_without_a_reader_is_not_used():
    assert not WITHOUT_READER


def test_the_schema_is_walked_whole():
    assert {"seed", "train.duration", "augment.crop_area", "export.formats"} <= FIELDS
    modules = [
        importlib.import_module(f"configs.schema.{each.name}")
        for each in pkgutil.iter_modules(schema.__path__)
    ]
    classes = {
        name
        for module in (schema, *modules)
        for name, kind in vars(module).items()
        if inspect.isclass(kind) and issubclass(kind, Section) and kind is not Section
    }
    assert classes == set(PLACE_OF_CLASS)


def test_reads_are_found_in_every_form():
    source = """\
from configs.schema import Checkpoint, Experiment

def f(experiment, self):
    g(experiment.seed, self.experiment.ema.decay)
    data, recipe = experiment.data, experiment.train
    step = lambda: recipe.duration.whole_steps(1)
    return [data.source for _ in range(2)]

def h(settings: schema.Augment, e: "Experiment", keep: Checkpoint):
    settings.flip, e.optimizer.name, keep.every
    make(**own_settings(e.schedule))
"""
    assert reads(source) == {
        "seed",
        "ema.decay",
        "data.source",
        "train.duration",
        "augment.flip",
        "optimizer.name",
        "checkpoint.every",
        "schedule.decay_every",
        "schedule.decay_rate",
        "schedule.ends_before",
        "schedule.power",
        "schedule.end_share",
        "schedule.boundaries",
        "schedule.factors",
    }


def test_other_things_of_the_same_name_are_no_reads():
    source = """
def f(experiment):
    train = experiment.train

def g(model, optimizer, train):
    return model.name, optimizer.momentum, self.model.name, train.duration, experiment.train

class Keras:
    def h(self, name): self.ema.decay, name

def i(optimizer: schema.Optimizer, model: keras.Model, data: Data):
    return model.name, data.source
"""
    assert reads(source) == set()
