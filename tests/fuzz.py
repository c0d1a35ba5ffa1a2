"""Shared parts of the fuzz tests: the number of cases and the damage to bytes.

    FUZZ_CASES=5000 .venv/bin/python -m pytest -k fuzz

runs that many cases of each test instead of the default few.
"""

import os
import resource

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st


def bounded(cases: int) -> settings:
    """Run so many cases, or FUZZ_CASES; without FUZZ_CASES always the same ones."""
    asked = os.environ.get("FUZZ_CASES")
    return settings(
        max_examples=int(asked or cases),
        derandomize=asked is None,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@st.composite
def damaged(draw: st.DrawFn, originals: dict[str, bytes]) -> bytes:
    """Draw one of the originals, cut, or with bytes changed, inserted or removed, or unchanged."""
    content = bytearray(originals[draw(st.sampled_from(sorted(originals)))])
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, max(len(content) - 1, 0)))
        # Damage headers often: they are short and parsers depend on them.
        place = place % 64 if draw(st.booleans()) else place
        match draw(st.sampled_from(["cut", "flip", "write", "remove", "insert"])):
            case "cut":
                del content[place:]
            case "flip" if place < len(content):
                content[place] ^= 1 << draw(st.integers(0, 7))
            case "write":
                piece = draw(st.binary(min_size=1, max_size=8))
                content[place : place + len(piece)] = piece
            case "remove":
                del content[place : place + draw(st.integers(1, 32))]
            case "insert":
                content[place:place] = draw(st.binary(max_size=16))
    return bytes(content)


def peak_mib() -> int:
    """Return the peak resident memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
