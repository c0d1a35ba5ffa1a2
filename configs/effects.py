"""Settings that another one turns off: without weight decay, the pattern of what decays has no effect."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from configs.layers import flat
from configs.schema import Experiment


class Switch(NamedTuple):
    """A setting that can turn others off."""

    key: str
    turns_off: Callable[[Any], bool]  # of its value
    remedy: str  # what to set it to instead, for messages
    settings: tuple[str, ...]  # keys of the others


SWITCHES = (
    Switch(
        "train.weight_decay",
        lambda rate: rate == 0,
        "above 0",
        ("train.weight_decay_coupled", "train.weight_decay_pattern"),
    ),
    Switch(
        "train.trainable",
        lambda rule: rule == "head",  # all of it has the whole rate
        "to more than the head",
        ("optimizer.layer_decay",),
    ),
    Switch(
        "optimizer.momentum",
        lambda momentum: momentum == 0,
        "above 0",
        ("optimizer.nesterov", "optimizer.rate_in_velocity"),
    ),
    Switch(
        "schedule.warmup",
        lambda warmup: warmup.amount == 0,
        "above 0",
        ("schedule.warmup_from",),
    ),
)


def idle_settings(
    experiment: Experiment, stages: Sequence[Experiment]
) -> Iterator[tuple[int | None, str, Switch]]:
    """Yield each setting that is turned off: the stage that sets it (None: the run), its key, and by what.

    What a stage sets must have an effect in this stage; what the run sets, in any.

    Args:
      experiment: settings of the run.
      stages: settings of each stage.
    """
    idle = [_idle(stage) for stage in stages]
    for number, overlay in enumerate(experiment.stages):
        own = dict(flat(overlay.set))
        yield from ((number, key, switch) for key, switch in idle[number].items() if key in own)
    for key, switch in idle[0].items():
        if all(key in found for found in idle):
            yield None, key, switch


def _idle(experiment: Experiment) -> dict[str, Switch]:
    """Return the keys whose values are not the default and have no effect, each with what turns it off."""
    return {
        key: switch
        for switch in SWITCHES
        for key in switch.settings
        if _differs_from_default(experiment, key)
        and switch.turns_off(_value(experiment, switch.key))
    }


def _value(experiment: Experiment, key: str) -> Any:
    section, _, field = key.partition(".")
    return getattr(getattr(experiment, section), field)


def _differs_from_default(experiment: Experiment, key: str) -> bool:
    name, _, field = key.partition(".")
    section = getattr(experiment, name)
    fields = type(section).model_fields  # a kind may be without it
    return field in fields and getattr(section, field) != fields[field].default
