"""Load an Experiment from layers: YAML files and their bases, `--set a.b=v`, and flags.

An error is one line with the place where the value was given, its key, the value and what is allowed.
"""

import difflib
import json
import os
import posixpath
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from configs import describe, effects, formats, model_file, progressive, strict_yaml
from configs.layers import (
    Layer,
    flat,
    height_of,
    merge_layers,
    nest,
    origin_of,
    stack_layers,
    value_at,
    with_tuples,
)
from configs.schema import KINDS, ConflictError, Experiment, StageOverlay, Stepwise
from configs.schema.stages import STAGE_KEYS
from system import files
from system.errors import UsageError

FOLDER = Path(__file__).parent
DIGITS = str(FOLDER / "digits.yaml")  # the default experiment
IMAGENET = str(FOLDER / "imagenet.yaml")  # the published recipe, for models without a file

# Command line flags that are values of the experiment: flag -> key.
FLAG_KEYS = {
    "model": "model.name",
    "data_dir": "data.data_dir",
    "model_dir": "model_dir",
    "seed": "seed",
}

# A resumed run must have the same network, task, data set and batch as the run it continues: the position
# in the data is a number of batches. What else decides the meaning of the optimizer's slots must be the
# same too: SGD and LARS both call theirs `momentum`, in other units.
RESUME_KEYS = (
    "model",
    "task.name",
    "data.source",
    "data.data_dir",
    "data.holdout_shards",
    "data.num_train_examples",
    "train.global_batch_size",
    "optimizer.name",
    "optimizer.rate_in_velocity",
)

# What a stage that has begun keeps on resuming: all STAGE_KEYS except those that only split the work.
STAGE_RESUME_KEYS = tuple(
    key
    for key in STAGE_KEYS
    if key
    not in ("train.accumulation_steps", "train.steps_per_call", "eval.every", "checkpoint.every")
)

_MAX_FILE_SIZE = 2**20  # bytes; a whole experiment is 3 kB
_MAX_FILES = 100  # of one experiment, bases of bases included
_MAX_VALUE_LENGTH = 80  # characters of a value in a message


class ConfigError(UsageError):
    """An invalid experiment; the message has the place, the key and what is allowed."""

    def __init__(self, message: str) -> None:
        super().__init__("".join(c if c.isprintable() else _escape(c) for c in message))


def load_experiment(
    path: str | os.PathLike[str] | None = None,
    *,
    overrides: Sequence[str] = (),
    values: Mapping[str, object] | None = None,
) -> Experiment:
    """Load an experiment: the file over its `base:` files, then `overrides`, then `values`.

    A layer that names another kind of a section (`optimizer.name`) replaces the fields that only the
    kind below has, and is merged with the fields that all kinds share.

    Args:
      path: a YAML file, local or remote (`gs://`); None: `configs/digits.yaml`.
      overrides: the texts of `--set`, such as `"optimizer.momentum=0.8"`; the value is YAML.
      values: values of flags by key, as in FLAG_KEYS; None means that a flag was not given.

    Raises:
      ConfigError: a file cannot be read, or the experiment is invalid.
    """
    groups = [
        *([layer] for layer in _file_layers(files.beside("", os.fspath(path or DIGITS)))),
        [_with_network(_override_layer(text)) for text in overrides],
        [
            _with_network(_flag_layer(key, value))
            for key, value in (values or {}).items()
            if value is not None
        ],
    ]
    layers = stack_layers(groups)
    experiment = _expand_progressive(_validate(layers), layers)
    try:
        stages = stage_experiments(experiment)
    except ConfigError as error:
        place = origin_of(["stages"], layers) or origin_of(["progressive"], layers)
        raise ConfigError(f"{place}: {error}") from None
    # In all stages together: one without mixing may come before one with it.
    pairing = experiment.augment.pairing
    if pairing != "neighbours" and not any(stage.augment.mixes_labels for stage in stages):
        raise ConfigError(
            f"{origin_of(['augment', 'pairing'], layers)}: augment.pairing={pairing} has no effect without"
            " mixing; set augment.mixup_alpha or augment.cutmix_alpha above 0"
        )
    _refuse_unsorted_boundaries(stages, groups)
    _refuse_idle_settings(experiment, stages, groups)
    return experiment


def _refuse_unsorted_boundaries(
    stages: Sequence[Experiment], groups: Sequence[Sequence[Layer]]
) -> None:
    """Refuse boundaries that do not increase; a saved run may have been trained with them."""
    chosen = max(height_of(key, groups) for key in ("schedule.boundaries", "stages"))
    schedules = [stage.schedule for stage in stages if isinstance(stage.schedule, Stepwise)]
    for pair in filter(None, (schedule.unsorted_boundaries for schedule in schedules)):
        if chosen >= 0:
            raise ConfigError(
                f"schedule.boundaries must increase, and {pair[1]} follows {pair[0]}: sort them, with their"
                " factors"
            )


def _refuse_idle_settings(
    experiment: Experiment, stages: Sequence[Experiment], groups: Sequence[Sequence[Layer]]
) -> None:
    """Refuse settings that the same layer or one below turns off.

    A layer above may do so: `--set train.weight_decay=0` on a recipe that says which variables decay.
    """
    layers = [layer for group in groups for layer in group]
    for number, key, switch in effects.idle_settings(experiment, stages):
        place = key if number is None else "stages"
        if height_of(place, groups) < max(height_of(switch.key, groups), 0):
            continue
        values = settings(stages[number or 0], (key, switch.key))
        value, off = _plain(values[key]), _plain(values[switch.key])
        if number is None:
            origins = [origin_of(each.split("."), layers) for each in (key, switch.key)]
            origin = " and ".join(dict.fromkeys(filter(None, origins)))
            scope = " in every stage" if experiment.stages else ""
        else:
            origin, scope = f"{origin_of(['stages'], layers)}: stages[{number}].set", ""
        raise ConfigError(
            f"{origin}: {key}={value} has no effect with {switch.key}={off}{scope}: leave it out, or set"
            f" {switch.key} {switch.remedy}"
        )


def _expand_progressive(experiment: Experiment, layers: Sequence[Layer]) -> Experiment:
    if experiment.progressive is None:
        return experiment
    if experiment.stages:
        places = (origin_of([key], layers) for key in ("stages", "progressive"))
        raise ConfigError(
            f"{' and '.join(dict.fromkeys(places))}: progressive becomes stages; give one of the two"
        )
    stages = progressive.expand(experiment.progressive)
    return experiment.model_copy(update={"stages": stages, "progressive": None})


def stage_experiments(experiment: Experiment) -> list[Experiment]:
    """Return the settings of each stage: the experiment without stages, under what a stage sets.

    Without stages that is the experiment itself, once.

    Raises:
      ConfigError: a stage sets a key that is fixed for the run, or the result is invalid.
    """
    if not experiment.stages:
        return [experiment]
    whole = {**experiment.model_dump(mode="json"), "stages": []}
    return [
        _validate(stack_layers([[Layer("", whole)], _stage_layers(f"stages[{number}].set", stage)]))
        for number, stage in enumerate(experiment.stages)
    ]


def _stage_layers(origin: str, stage: StageOverlay) -> list[Layer]:
    settings = dict(flat(stage.set))
    for key in settings:
        if not _is_under(key, STAGE_KEYS):
            raise ConfigError(
                f"{origin}: {key} cannot differ between stages; a stage sets {', '.join(STAGE_KEYS)}"
            )
    return [Layer(origin, nest(key, value)) for key, value in settings.items()]


def _validate(layers: Sequence[Layer]) -> Experiment:
    tree = merge_layers(layers)
    try:
        return Experiment.model_validate(with_tuples(tree))
    except ValidationError as error:
        problems = list(dict.fromkeys(_problems(error, tree, layers)))
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ConfigError(problems[0] + more) from None


def config_for_model(name: str) -> str:
    """Return the path of a model's recipe (`efficientnet-b4`: `configs/efficientnet_b4.yaml`).

    For a model without a recipe it is the published one, `configs/imagenet.yaml`. The name is not
    checked here; the catalog does that.
    """
    path = FOLDER / (name.replace("-", "_") + ".yaml")
    return str(path) if path in FOLDER.glob("*.yaml") else IMAGENET


def to_yaml(experiment: Experiment) -> str:
    """Return every field as YAML, from which `load_experiment` reads the same experiment."""
    return strict_yaml.dump({"format": formats.FORMAT, **experiment.model_dump(mode="json")})


def save_experiment(experiment: Experiment, path: str | os.PathLike[str]) -> None:
    """Save `to_yaml(experiment)` to a file, local or remote, atomically.

    Raises:
      ConfigError: the file cannot be written.
    """
    try:
        files.write_text(os.fspath(path), to_yaml(experiment))
    except OSError as error:
        raise ConfigError(f"{os.fspath(path)}: cannot be written: {_reason(error)}") from error


def difference(old: Experiment, new: Experiment, keys: Collection[str] | None = None) -> list[str]:
    """List the differences as `model.name: efficientnet-b0 -> efficientnet-b4`, in the schema's order.

    Args:
      old: left of the arrow.
      new: right of the arrow.
      keys: fields or sections to compare, as in RESUME_KEYS; None compares everything.

    Returns:
      A line for each field that differs. If a section has different kinds, only the kind and the
      fields that both kinds have are compared.
    """
    before, after = (dict(_leaves(e.model_dump(mode="json"))) for e in (old, new))
    return [
        f"{key}: {_plain(before[key])} -> {_plain(after[key])}"
        for key in before
        if before[key] != after.get(key, before[key]) and (keys is None or _is_under(key, keys))
    ]


def settings(experiment: Experiment, sections: Collection[str]) -> dict[str, object]:
    """Return the values of some sections by key, such as train.global_batch_size, as JSON has them."""
    leaves = _leaves(experiment.model_dump(mode="json"))
    return {key: value for key, value in leaves if _is_under(key, sections)}


# Layers


def _file_layers(path: str, chain: tuple[str, ...] = ()) -> Iterator[Layer]:
    """Yield the layers of the file's bases, deepest first, then its own.

    Args:
      path: the file.
      chain: the files that name this one as a base, outermost first.
    """
    if path in chain:
        raise ConfigError(f"{chain[0]}: circular base: {' -> '.join((*chain, path))}")
    if len(chain) >= _MAX_FILES:
        raise ConfigError(f"{chain[0]}: more than {_MAX_FILES} files, each the base of another")
    tree = _read_mapping(path, chain)
    try:
        values = formats.upgrade(tree)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    for base in _bases(path, values.pop("base", [])):
        yield from _file_layers(files.beside(path, base), (*chain, path))
    yield _with_network(Layer(path, values, is_saved="format" in tree), path)


def _with_network(layer: Layer, place: str = "") -> Layer:
    """Add the content of the model file that a layer names; `place` is the layer's own file.

    A layer that names a published model removes the network of the layers below.
    """
    model = layer.values.get("model")
    if not isinstance(model, dict) or "name" not in model or "network" in model:
        return layer
    named: dict[str, Any] = {"network": None}
    if model_file.is_model_file(model["name"]):
        try:
            network = model_file.read_model_file(files.beside(place, model["name"]))
        except model_file.ModelFileError as error:
            raise ConfigError(str(error)) from None
        named = {"name": network.name, "network": network.model_dump(mode="json")}
    return layer._replace(values={**layer.values, "model": {**model, **named}})


def _bases(path: str, base: object) -> list[str]:
    bases: list[Any] = base if isinstance(base, list) else [base]
    if not all(isinstance(name, str) and name for name in bases):
        raise ConfigError(
            f"{path}: base must be a file or a list of files, not {_format_value(base)}"
        )
    return bases


def _read_mapping(path: str, chain: tuple[str, ...]) -> dict[str, Any]:
    try:
        tree = strict_yaml.parse(files.read_text(path, limit=_MAX_FILE_SIZE))
    except FileNotFoundError:
        raise ConfigError(_missing_file(path, chain)) from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {_reason(error)}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})") from error
    except ValueError as error:
        raise ConfigError(f"{path}: not an experiment in YAML: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(
            f"{path}: expected sections of keys and values, not {_format_value(tree)}"
        )
    return tree


def _missing_file(path: str, chain: tuple[str, ...]) -> str:
    where = f"{chain[-1]}: base: " if chain else ""
    folder = FOLDER if files.is_remote(path) else Path(path).parent
    # Without the ending, which all files share: with it, nothing.yaml is near digits.yaml.
    stem = posixpath.splitext(posixpath.basename(path))[0]
    near = [f"{name}.yaml" for name in _near(stem, sorted(f.stem for f in folder.glob("*.yaml")))]
    return f"{where}{path}: file not found" + (f"; {_did_you_mean(near)}" if near else "")


def _override_layer(text: str) -> Layer:
    key, equals, value = text.partition("=")
    key, origin = key.strip(), f"--set {_shorten(text)}"
    if not equals or not key:
        raise ConfigError(f"{origin}: expected KEY=VALUE, as in --set optimizer.momentum=0.8")
    try:
        return Layer(origin, nest(key, strict_yaml.parse(value)))
    except ValueError as error:
        raise ConfigError(f"{origin}: not a value in YAML: {error}") from error


def _flag_layer(key: str, value: object) -> Layer:
    flag = next((f"--{flag}" for flag, its_key in FLAG_KEYS.items() if its_key == key), key)
    return Layer(f"{flag}={_shorten(str(value))}", nest(key, value))


# Errors


def _problems(
    error: ValidationError, tree: Mapping[str, Any], layers: Sequence[Layer]
) -> Iterator[str]:
    """Yield a line for each problem that pydantic found in `tree`, the merged `layers`."""
    for problem in error.errors(include_url=False):
        cause = problem.get("ctx", {}).get("error")
        if isinstance(cause, ConflictError):
            places = (origin_of(key.split("."), layers) for key in cause.keys)
            yield f"{' and '.join(dict.fromkeys(filter(None, places)))}: {cause}"
        elif problem["loc"][:2] == ("model", "network"):
            inside = {**problem, "loc": problem["loc"][2:]}
            place = origin_of(["model", "network"], layers)
            yield f"{place}: model.network: {model_file.describe_problem(inside)}"
        elif problem["type"] == "extra_forbidden":
            path = [str(part) for part in problem["loc"]]
            yield f"{origin_of(_keys(path), layers)}: {_unknown_key(path, tree)}"
        else:
            path = [*describe.known_part(problem["loc"])]
            if problem["type"].startswith("union_tag") and isinstance(tree[path[0]], dict):
                path.append(KINDS[path[0]].key)  # the section is a mapping, so its kind is unknown
            keys = _keys(path)
            must = f"{'.'.join(keys)} must be {describe.allowed_values(path)}"
            yield f"{origin_of(keys, layers)}: {must}, not {_format_value(value_at(tree, keys))}"


def _keys(path: Sequence[str]) -> list[str]:
    """Convert pydantic's path to the user's: drop the kind that follows a section's name."""
    section, *rest = path
    has_kind = section in KINDS and rest and rest[0] in KINDS[section].classes
    return [section, *rest[1:]] if has_kind else [*path]


def _unknown_key(path: Sequence[str], tree: Mapping[str, Any]) -> str:
    *section, name = path
    keys = _keys(path)
    value = _format_value(value_at(tree, keys))
    known = describe.keys_of(section)
    holder = ".".join(section) or "an experiment"
    if len(section) == 2 and section[0] in KINDS:
        kinds, (holder, kind) = KINDS[section[0]], section
        holders = [other for other, each in kinds.classes.items() if name in each.model_fields]
        chosen = f"{holder}.{kinds.key}={kind}"
        if holders:
            return (
                f"{'.'.join(keys)}={value} has no effect with {chosen}, which takes"
                f" {', '.join(key for key in known if key != kinds.key)};"
                f" {name} is for {describe.one_of(holders)}"
            )
        holder = chosen
    top, _, below = name.partition(".")
    if below in describe.keys_of([top]):
        near = [f"{top}: {{{below}: ...}}"]
    else:
        elsewhere = (other for other in describe.keys_of([]) if name in describe.keys_of([other]))
        near = _near(name, describe.keys_of(section[:1])) or [
            f"{other}.{name}" for other in elsewhere
        ]
    found = f"unknown key {'.'.join(keys)} (with the value {value})"
    hint = f" {_did_you_mean(near)}" if near else ""
    return f"{found};{hint} {holder} has {', '.join(known)}"


def _near(name: str, known: Sequence[str]) -> list[str]:
    return difflib.get_close_matches(name, known, n=3)


def _did_you_mean(names: Sequence[str]) -> str:
    return f"did you mean {' or '.join(names)}?"


def _format_value(value: object) -> str:
    """Format a value as in YAML, shortened."""
    return _shorten(json.dumps(value, ensure_ascii=False, default=str))


def _shorten(text: str) -> str:
    return text if len(text) <= _MAX_VALUE_LENGTH else text[: _MAX_VALUE_LENGTH - 3] + "..."


def _plain(value: object) -> str:
    return value if isinstance(value, str) else _format_value(value)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _leaves(tree: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Yield the values of an experiment and of its sections by key; a network is one value."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from ((f"{key}.{field}", inside) for field, inside in value.items())
        else:
            yield key, value


def _is_under(key: str, sections: Collection[str]) -> bool:
    return any(key == section or key.startswith(f"{section}.") for section in sections)
