"""Settings that the initial weights expect, where the experiment leaves them open.

A wrong normalisation costs many points of accuracy and raises no error. So `init.weights` fills in the fields
below that are null, and the log says which; what the experiment sets is kept, and a difference is
logged, or an error with `init.strict`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from configs.load import load_experiment
from configs.schema import Experiment
from efficientnet import ModelSpec
from efficientnet.spec import describe_size, height_width
from efficientnet.weights.expectations import Expectations
from efficientnet.weights.open import open_weights
from input_pipeline.images.crop import CENTRE_SHARE
from run_folder.experiment import run_experiment_file
from system.console import log
from system.errors import UsageError

SpecOf = Callable[[Experiment], ModelSpec]  # `job.model_spec`


class Expected(NamedTuple):
    """A field of the experiment and what the weights expect of it."""

    section: str
    field: str
    value: Any  # that the weights expect; None if that is not known
    effective: Any  # that the experiment has, by itself or by the network's default

    @property
    def key(self) -> str:
        """The full key, such as `model.normalization`."""
        return f"{self.section}.{self.field}"

    @property
    def agrees(self) -> bool:
        """Whether the experiment has what the weights expect."""
        if self.value is None or self.value == self.effective:
            return True
        numbers = not isinstance(self.value, str)
        return numbers and np.allclose(self.value, self.effective, rtol=1e-4, atol=1e-9)


def with_expectations(experiment: Experiment, spec_of: SpecOf) -> Experiment:
    """Fill in the open fields that the initial weights expect, and log them.

    A run that has begun with the same weights keeps the values of its start: the weights need not be there
    any more.

    Args:
      experiment: experiment as the user gave it.
      spec_of: function that returns the network of an experiment.

    Raises:
      WeightsError: the weights cannot be read.
      UsageError: the experiment sets another value than the weights expect, with init.strict.
    """
    init = experiment.init
    if init.weights is None:
        return experiment
    begun = _begun(experiment)
    expectations = None if begun else open_weights(init.weights, spec_of(experiment)).expectations
    if expectations and expectations.note:
        log(f"init.weights={init.weights}: {expectations.note}")
    for section, field in FIELDS:
        if begun:
            experiment = _as_begun(experiment, begun, section, field)
            continue
        assert expectations
        # In turn: the crop depends on the size.
        expected = _expected_setting(section, field, expectations, experiment, spec_of(experiment))
        if not expected.agrees:
            experiment = _settle(experiment, expected, expectations.source)
    return experiment


def _settle(experiment: Experiment, expected: Expected, source: str) -> Experiment:
    given = getattr(getattr(experiment, expected.section), expected.field)
    wanted = _plain(expected.value)
    if given is None:
        log(f"{expected.key}={wanted}, as the weights of {source} expect")
        return _with(experiment, expected.section, expected.field, expected.value)
    line = f"{expected.key}={_plain(given)}, and the weights of {source} expect {wanted}"
    if experiment.init.strict:
        raise UsageError(f"{line}: leave it out, or set init.strict=false to keep it")
    log(f"{line}: kept as set")
    return experiment


def _expected_setting(
    section: str, field: str, given: Expectations, experiment: Experiment, spec: ModelSpec
) -> Expected:
    view = experiment.eval
    size = view.image_size or spec.eval_resolution
    default_padding = round(min(height_width(size)) * (1 / CENTRE_SHARE - 1))
    padding = getattr(view, "crop_padding", None)
    values = {
        "normalization": (given.normalization, (spec.mean_rgb, spec.stddev_rgb)),
        "padding": (given.padding, spec.padding),
        "epsilon": (given.batch_norm_epsilon, spec.batch_norm_epsilon),
        "image_size": (given.image_size, spec.resolution),
        "resize": (given.resize, view.resize or experiment.augment.resize),
        "crop_padding": (
            given.crop_padding(size),
            default_padding if padding is None else padding,
        ),
    }
    value, effective = values[field]
    # phi sets the size, and only a centre crop has a padding.
    by_phi = field == "image_size" and experiment.model.phi is not None
    if by_phi or not hasattr(getattr(experiment, section), field):
        value = None
    return Expected(section, field, value, effective)


# The fields that initial weights fill in where they are null.
FIELDS = (
    ("model", "normalization"),
    ("model", "padding"),
    ("batch_norm", "epsilon"),
    ("model", "image_size"),
    ("eval", "resize"),
    ("eval", "crop_padding"),
)


def _begun(experiment: Experiment) -> Experiment | None:
    """Return the experiment of the run in model_dir if it began with the same weights."""
    file = run_experiment_file(experiment.model_dir) if experiment.model_dir else None
    before = load_experiment(file) if file else None
    return before if before and before.init.weights == experiment.init.weights else None


def _as_begun(experiment: Experiment, begun: Experiment, section: str, field: str) -> Experiment:
    before = getattr(getattr(begun, section), field, None)
    now = getattr(experiment, section)
    open_now = hasattr(now, field) and getattr(now, field) is None
    return _with(experiment, section, field, before) if open_now else experiment


def _with(experiment: Experiment, section: str, field: str, value: Any) -> Experiment:
    changed = getattr(experiment, section).model_copy(update={field: value})
    return experiment.model_copy(update={section: changed})


def _plain(value: Any) -> str:
    if isinstance(value, tuple) and isinstance(value[0], tuple):
        return str([[round(number, 3) for number in rgb] for rgb in value])
    return describe_size(value) if isinstance(value, tuple) else str(value)
