"""Where the time went, from rows whose parts are known."""

import pytest

from serving.report.timing import images_per_second, seconds_by_part


def train(seconds: float, input_seconds: float, *, first: int = 0, steps: int = 10) -> dict:
    return {
        "phase": "train", "step": 0, "seconds": seconds, "steps": steps, "images": 32 * steps,
        "input_seconds": input_seconds, "first": first,
    }  # fmt: skip


def test_what_a_first_call_took_beyond_the_others_is_compiling() -> None:
    rows = [
        {"phase": "start", "step": 0, "seconds": 1.0},
        {"phase": "trace", "step": 0, "seconds": 2.0},
        train(9.0, 3.0, first=1),  # 6 s without input; 10 steps of the others take 4
        train(5.0, 1.0),
        train(2.5, 0.5, steps=5),
        {"phase": "evaluation", "step": 0, "seconds": 0.5},
        {"phase": "checkpoint", "step": 0, "seconds": 0.25},
    ]
    parts = seconds_by_part(rows)
    assert parts == pytest.approx(
        {
            "start": 1.0,
            "tracing and compiling": 4.0,
            "input": 4.5,
            "step": 10.0,
            "evaluation": 0.5,
            "checkpoints": 0.25,
        }
    )
    assert sum(parts.values()) == pytest.approx(sum(row["seconds"] for row in rows))


def test_every_stage_compiles_its_own_step() -> None:
    rows = [train(3.0, 0.0, first=1), train(1.0, 0.0), train(8.0, 0.0, first=1), train(4.0, 0.0)]
    assert seconds_by_part(rows) == pytest.approx({"tracing and compiling": 6.0, "step": 10.0})


def test_a_single_call_counts_as_steps() -> None:
    assert seconds_by_part([train(3.0, 1.0, first=1)]) == {"input": 1.0, "step": 2.0}


def test_speed_is_the_median_of_the_calls_after_the_first() -> None:
    rows = [train(100.0, 0.0, first=1), train(1.0, 0.0), train(2.0, 0.0), train(4.0, 0.0)]
    assert images_per_second(rows) == 160.0
    assert images_per_second(rows[:1]) is None
