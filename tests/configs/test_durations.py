import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.durations import LONGEST, UNITS, Duration

IMAGENET = 1_281_167

examined = settings(max_examples=300, deadline=None, derandomize=True, database=None)
durations = st.builds(Duration, st.floats(0, LONGEST), st.sampled_from(UNITS))


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("350 epochs", 350, "epochs"),
        ("1 epoch", 1, "epochs"),
        ("2.4 epochs", 2.4, "epochs"),
        (".5 epochs", 0.5, "epochs"),
        ("0 steps", 0, "steps"),
        ("  100   steps ", 100, "steps"),
        ("1e6 examples", 1_000_000, "examples"),
        ("1e-3 epochs", 0.001, "epochs"),
    ],
)
def test_a_duration_is_a_number_and_its_unit(text, amount, unit):
    assert Duration.parse(text) == Duration(amount, unit)


@pytest.mark.parametrize(
    "text",
    [
        350,
        "350",
        "epochs",
        "-1 epochs",
        "1 hours",
        "1 2 steps",
        "inf steps",
        "1e999 steps",
        "",
        None,
    ]
    + ["350 epochs\n5 steps", "٣ epochs", True],
)
def test_anything_else_is_refused_with_what_is_allowed(text):
    with pytest.raises(ValueError, match=r"a duration.*(epochs, steps or examples|6400 examples)"):
        Duration.parse(text)


@pytest.mark.parametrize(
    ("amount", "unit"), [(1, "epoch"), (-1, "steps"), (float("nan"), "steps"), (2e12, "examples")]
)
def test_no_duration_is_made_that_could_not_be_read(amount, unit):
    with pytest.raises(ValueError, match="a duration is 0 to 1e"):
        Duration(amount, unit)


@pytest.mark.parametrize(
    ("text", "global_batch_size", "steps"),
    [
        ("350 epochs", 2048, 218_949),  # the figure of the published implementation
        ("350 epochs", 4096, 109_474),
        ("600 epochs", 4096, 187_670),
        ("5 epochs", 4096, 1_563),
        ("2.4 epochs", 2048, 1_501),
        ("100 steps", 2048, 100),
        ("100 steps", 1, 100),
        ("6400 examples", 64, 100),
        ("6463 examples", 64, 100),
    ],
)
def test_imagenet_durations_in_whole_steps(text, global_batch_size, steps):
    duration = Duration.parse(text)
    assert duration.whole_steps(num_examples=IMAGENET, global_batch_size=global_batch_size) == steps


def test_steps_are_exact_fractions():
    exactly = Duration.parse("2.4 epochs").in_steps(num_examples=IMAGENET, global_batch_size=2048)
    assert exactly == pytest.approx(1501.3675781, abs=1e-6)
    # In floats 0.1 * 30 / 3 and its like fall short of, or pass, the whole number.
    for tenths in range(1, 100):
        duration = Duration.parse(f"{tenths / 10} epochs")
        assert duration.whole_steps(num_examples=70, global_batch_size=7) == tenths


def test_a_short_duration_is_one_step_and_zero_is_none():
    sizes = {"num_examples": 1000, "global_batch_size": 4096}
    assert Duration.parse("1 epochs").whole_steps(**sizes) == 1
    assert Duration.parse("0 epochs").whole_steps(**sizes) == 0


@examined
@given(durations)
def test_every_duration_reads_back_what_it_writes(duration):
    assert Duration.parse(str(duration)) == duration


@examined
@given(durations, st.integers(1, 10**7), st.integers(1, 10**6))
def test_whole_steps_are_the_exact_ones_rounded_down(duration, num_examples, global_batch_size):
    sizes = {"num_examples": num_examples, "global_batch_size": global_batch_size}
    exactly = Fraction(repr(duration.amount))
    if duration.unit == "epochs":
        exactly *= num_examples
    if duration.unit != "steps":
        exactly /= global_batch_size
    assert duration.in_steps(**sizes) == float(exactly)
    assert duration.whole_steps(**sizes) == max(math.floor(exactly), 1 if duration.amount else 0)
