import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import strict_yaml

leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
trees = st.recursive(
    leaves, lambda parts: st.lists(parts) | st.dictionaries(st.text(), parts), max_leaves=10
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("1.0e-05", 1e-5),
        ("-2.5E+3", -2500.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("007", "007"),
        ("0", 0),
        ("-12", -12),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("0x10", "0x10"),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("null", None),
        ("~", None),
        ("", None),
        ("2026-01-01", "2026-01-01"),
        ("10 epochs", "10 epochs"),
        ("'1e-5'", "1e-5"),
        ("[0.6, 1]", [0.6, 1]),
        ("{a: {b: 2}}", {"a": {"b": 2}}),
    ],
)
def test_plain_values_are_those_of_yaml_1_2(text, value):
    parsed = strict_yaml.parse(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: the key 'a' is given twice"),
        ("a: {b: 1, c: 2, b: 1}", "line 1: the key 'b' is given twice"),
        ("a: &x [1]\nb: *x\n", "line 2: aliases (*name) are not supported"),
        ("a: !!python/name:os.system x", "line 1: tags (tag:yaml.org,2002:python/name:os.system)"),
        ("a: !!int x", "line 1: tags (tag:yaml.org,2002:int) are not supported"),
        ("1: 2", "line 1: the key 1 is not text"),
        ("a: b: c", "line 1: mapping values are not allowed here"),
        ("a: [1", "line 1: expected ',' or ']'"),
        ("a\n---\nb", "line 2: but found another document"),
        ("a: \x00", "special characters are not allowed"),
        ("[" * 5000, "nested too deeply"),
        ("9" * 5000, "Exceeds the limit"),
    ],
)
def test_surprises_are_errors_with_their_line(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        strict_yaml.parse(text)


@pytest.mark.slow
@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(trees)
def test_what_is_written_reads_back_the_same(tree):
    assert strict_yaml.parse(strict_yaml.dump(tree)) == tree


@pytest.mark.parametrize("text", ["\x85", "a\u2028b", "1e5", "no", "null", "1:30", "ü", " ", "- a"])
def test_text_that_looks_like_something_else_stays_text(text):
    assert strict_yaml.parse(strict_yaml.dump({"name": text})) == {"name": text}
