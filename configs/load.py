"""YAML files, overlays, `--set a.b=v` and flags, one on top of the other, become an Experiment.

An error is one line that names where the value was given, its key, the value and what is allowed.
"""

import difflib
import json
import os
import posixpath
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from configs import describe, formats, model_file, strict_yaml
from configs.schema import KINDS, ConflictError, Experiment
from configs.sections import own_fields
from system import files
from system.errors import UsageError

FOLDER = Path(__file__).parent
DIGITS = str(FOLDER / "digits.yaml")  # what runs when nothing is asked for
IMAGENET = str(FOLDER / "imagenet.yaml")  # the published recipe, for models without a file

# Command line flags that are values of the experiment: flag -> key.
FLAG_KEYS = {
    "model": "model.name",
    "data_dir": "data.data_dir",
    "model_dir": "model_dir",
    "seed": "seed",
}

# What a resumed run must share with the one that it continues: the network, the data set, and the batch,
# because the position in the data is a number of batches.
RESUME_KEYS = (
    "model",
    "data.source",
    "data.data_dir",
    "data.holdout_shards",
    "data.num_train_examples",
    "train.global_batch_size",
)

_LARGEST_FILE = 2**20  # bytes; a whole experiment is 3 kB
_MOST_FILES = 100  # of one experiment, overlays of overlays included
_LONGEST_VALUE = 80  # characters of a value in a message


class ConfigError(UsageError):
    """An experiment that cannot be: one line that says where, which key, what is allowed."""

    def __init__(self, message: str) -> None:
        super().__init__("".join(c if c.isprintable() else _escaped(c) for c in message))


class _Layer(NamedTuple):
    """Values from one place: `origin` is that place in words, `values` a tree of sections."""

    origin: str
    values: Mapping[str, Any]


def load_experiment(
    path: str | os.PathLike[str] | None = None,
    *,
    overrides: Sequence[str] = (),
    values: Mapping[str, object] | None = None,
) -> Experiment:
    """Read an experiment: the file over its `base:` files, then `overrides`, then `values`.

    Where one of these names another kind of a section (`optimizer.name`), it replaces the fields
    that only the kind below has, and is merged with those that all kinds share.

    Args:
      path: a YAML file, local or remote (`gs://`); None: the digits, `configs/digits.yaml`.
      overrides: the texts of `--set`, `"optimizer.momentum=0.8"`; what follows `=` is YAML.
      values: values of flags by key, as in FLAG_KEYS; those that are None were not given and count
        for nothing.

    Raises:
      ConfigError: whatever is wrong, in one line.
    """
    layers = _stacked(
        [
            *([layer] for layer in _file_layers(files.beside("", os.fspath(path or DIGITS)))),
            [_with_network(_override_layer(text)) for text in overrides],
            [
                _with_network(_flag_layer(key, value))
                for key, value in (values or {}).items()
                if value is not None
            ],
        ]
    )
    tree = _sum(layers)
    try:
        return Experiment.model_validate(_with_tuples(tree))
    except ValidationError as error:
        problems = list(dict.fromkeys(_problems(error, tree, layers)))
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ConfigError(problems[0] + more) from None


def config_for_model(name: str) -> str:
    """Path of the recipe of a model (`efficientnet-b4`: `configs/efficientnet_b4.yaml`).

    A model without a file of its own gets the published recipe, `configs/imagenet.yaml`. Whether
    there is such a model at all is for the catalog to say.
    """
    path = FOLDER / (name.replace("-", "_") + ".yaml")
    return str(path) if path in FOLDER.glob("*.yaml") else IMAGENET


def to_yaml(experiment: Experiment) -> str:
    """Every field of `experiment` as YAML that `load_experiment` reads back as the same one."""
    return strict_yaml.dump({"format": formats.FORMAT, **experiment.model_dump(mode="json")})


def save_experiment(experiment: Experiment, path: str | os.PathLike[str]) -> None:
    """Write `to_yaml(experiment)` to a file, local or remote, whole or not at all.

    Raises:
      ConfigError: the file cannot be written.
    """
    try:
        files.write_text(os.fspath(path), to_yaml(experiment))
    except OSError as error:
        raise ConfigError(f"{os.fspath(path)}: cannot be written: {_reason(error)}") from error


def difference(old: Experiment, new: Experiment, keys: Collection[str] | None = None) -> list[str]:
    """Lines `model.name: efficientnet-b0 -> efficientnet-b4` for what differs, as the schema goes.

    `keys` (fields or sections, as RESUME_KEYS) restricts them to what matters; None: everything.
    Of a section of two kinds the kinds differ, and fields that both have.
    """
    before, after = (dict(_leaves(e.model_dump(mode="json"))) for e in (old, new))
    return [
        f"{key}: {_plain(before[key])} -> {_plain(after[key])}"
        for key in before
        if before[key] != after.get(key, before[key]) and (keys is None or _is_under(key, keys))
    ]


# Layers


def _file_layers(path: str, chain: tuple[str, ...] = ()) -> Iterator[_Layer]:
    """The layers of its bases, deepest first, then its own; `chain`: the files that led here."""
    if path in chain:
        raise ConfigError(f"{chain[0]}: base goes in a circle: {' -> '.join((*chain, path))}")
    if len(chain) >= _MOST_FILES:
        raise ConfigError(f"{chain[0]}: more than {_MOST_FILES} files, each the base of another")
    values = _read_mapping(path, chain)
    for base in _bases(path, values.pop("base", [])):
        yield from _file_layers(files.beside(path, base), (*chain, path))
    yield _with_network(_Layer(path, values), path)


def _with_network(layer: _Layer, place: str = "") -> _Layer:
    """The layer with the content of the model file that it names; `place` is the layer's own file.

    A layer that names a published model takes away the network of a layer below.
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
    return _Layer(layer.origin, {**layer.values, "model": {**model, **named}})


def _bases(path: str, base: object) -> list[str]:
    bases: list[Any] = base if isinstance(base, list) else [base]
    if not all(isinstance(name, str) and name for name in bases):
        raise ConfigError(f"{path}: base must be a file or a list of files, not {_shown(base)}")
    return bases


def _read_mapping(path: str, chain: tuple[str, ...]) -> dict[str, Any]:
    try:
        tree = strict_yaml.parse(files.read_text(path, limit=_LARGEST_FILE))
    except FileNotFoundError:
        raise ConfigError(_missing_file(path, chain)) from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {_reason(error)}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text in UTF-8 (byte {error.start})") from error
    except ValueError as error:
        raise ConfigError(f"{path}: not an experiment in YAML: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(
            f"{path}: an experiment is sections of keys and values, not {_shown(tree)}"
        )
    try:
        return formats.upgraded(tree)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def _missing_file(path: str, chain: tuple[str, ...]) -> str:
    where = f"{chain[-1]}: base: " if chain else ""
    folder = FOLDER if files.is_remote(path) else Path(path).parent
    near = _near(posixpath.basename(path), sorted(file.name for file in folder.glob("*.yaml")))
    return f"{where}{path}: there is no such file" + (f"; {_did_you_mean(near)}" if near else "")


def _override_layer(text: str) -> _Layer:
    key, equals, value = text.partition("=")
    key, origin = key.strip(), f"--set {_shortened(text)}"
    if not equals or not key:
        raise ConfigError(f"{origin}: write KEY=VALUE, as in --set optimizer.momentum=0.8")
    try:
        return _Layer(origin, _nested(key, strict_yaml.parse(value)))
    except ValueError as error:
        raise ConfigError(f"{origin}: not a value in YAML: {error}") from error


def _flag_layer(key: str, value: object) -> _Layer:
    flag = next((f"--{flag}" for flag, its_key in FLAG_KEYS.items() if its_key == key), key)
    return _Layer(f"{flag}={_shortened(str(value))}", _nested(key, value))


def _nested(key: str, value: object) -> dict[str, Any]:
    """`("model.name", x)` as `{"model": {"name": x}}`."""
    first, dot, rest = key.partition(".")
    return {first: _nested(rest, value) if dot else value}


def _stacked(groups: Sequence[Sequence[_Layer]]) -> list[_Layer]:
    """The layers of all groups, lowest first, without the fields of kinds that are replaced.

    What the layers of a group say counts at once: `--set optimizer.nesterov=true` may stand before
    the `--set optimizer.name=sgd` that it needs.
    """
    stack: list[_Layer] = []
    for group in groups:
        below, above = _sum(stack), _sum(group)
        for section, kinds in KINDS.items():
            values = above.get(section)
            if not isinstance(values, dict) or kinds.key not in values:
                continue
            replaced = kinds.of(below.get(section, {}))
            if replaced and kinds.of(values) not in (replaced, None):
                fields = own_fields(kinds.classes[replaced])
                stack = [_without(layer, section, fields) for layer in stack]
        stack += group
    return stack


def _without(layer: _Layer, section: str, fields: Collection[str]) -> _Layer:
    values = layer.values.get(section)
    if not isinstance(values, dict):
        return layer
    kept = {key: value for key, value in values.items() if key not in fields}
    return _Layer(layer.origin, {**layer.values, section: kept})


def _sum(layers: Sequence[_Layer]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for layer in layers:
        tree = _merged(tree, layer.values)
    return tree


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`below` with the values of `above`; sections are merged, everything else is replaced."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        if isinstance(under, dict) and isinstance(value, dict):
            value = _merged(under, value)
        merged[key] = value
    return merged


def _with_tuples(tree: Any) -> Any:
    """YAML's lists as the tuples that frozen fields hold."""
    if isinstance(tree, dict):
        return {key: _with_tuples(value) for key, value in tree.items()}
    return tuple(map(_with_tuples, tree)) if isinstance(tree, list) else tree


# Errors


def _problems(
    error: ValidationError, tree: Mapping[str, Any], layers: Sequence[_Layer]
) -> Iterator[str]:
    """A line for each thing that pydantic found wrong with `tree`, which is the sum of `layers`."""
    for problem in error.errors(include_url=False):
        cause = problem.get("ctx", {}).get("error")
        if isinstance(cause, ConflictError):
            places = (_origin(key.split("."), layers) for key in cause.keys)
            yield f"{' and '.join(dict.fromkeys(filter(None, places)))}: {cause}"
        elif problem["loc"][:2] == ("model", "network"):
            inside = {**problem, "loc": problem["loc"][2:]}
            place = _origin(["model", "network"], layers)
            yield f"{place}: model.network: {model_file.problem_in_words(inside)}"
        elif problem["type"] == "extra_forbidden":
            path = [str(part) for part in problem["loc"]]
            yield f"{_origin(_keys(path), layers)}: {_unknown_key(path, tree)}"
        else:
            path = [*describe.known_part(problem["loc"])]
            if problem["type"].startswith("union_tag") and isinstance(tree[path[0]], dict):
                path.append(KINDS[path[0]].key)  # a mapping, so it is the kind that is unknown
            keys = _keys(path)
            must = f"{'.'.join(keys)} must be {describe.allowed(path)}"
            yield f"{_origin(keys, layers)}: {must}, not {_shown(_value(tree, keys))}"


def _keys(path: Sequence[str]) -> list[str]:
    """A path of pydantic's as the user writes it: without the kind that follows a section's name."""
    section, *rest = path
    has_kind = section in KINDS and rest and rest[0] in KINDS[section].classes
    return [section, *rest[1:]] if has_kind else [*path]


def _unknown_key(path: Sequence[str], tree: Mapping[str, Any]) -> str:
    *section, name = path
    keys = _keys(path)
    value = _shown(_value(tree, keys))
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


def _origin(path: Sequence[str], layers: Sequence[_Layer]) -> str:
    """Where the value at `path` was given: the last layer with it, or nothing for a default."""
    return next((layer.origin for layer in reversed(layers) if _sets(layer.values, path)), "")


def _sets(values: Any, path: Sequence[str]) -> bool:
    for key in path:
        if not isinstance(values, Mapping):
            return True  # something else stands where a section should
        if key not in values:
            return False
        values = values[key]
    return True


def _value(tree: Any, path: Sequence[str]) -> object:
    for key in path:
        tree = tree[key]
    return tree


def _shown(value: object) -> str:
    """A value as it would stand in YAML, shortened."""
    return _shortened(json.dumps(value, ensure_ascii=False, default=str))


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."


def _plain(value: object) -> str:
    return value if isinstance(value, str) else _shown(value)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _leaves(tree: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """The values of an experiment and of its sections by key; a network is one value."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from ((f"{key}.{field}", inside) for field, inside in value.items())
        else:
            yield key, value


def _is_under(key: str, sections: Collection[str]) -> bool:
    return any(key == section or key.startswith(f"{section}.") for section in sections)
