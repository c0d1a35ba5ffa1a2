import pytest

from system.errors import UsageError, UserError, first_line


def test_a_user_error_ends_a_command_with_1_and_a_usage_error_with_2() -> None:
    assert (UserError.status, UsageError.status) == (1, 2)
    assert issubclass(UsageError, UserError)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("first\nsecond"), "first"),
        (ValueError("\n  first \nsecond"), "first"),
        (ValueError(""), "ValueError"),
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
    ],
)
def test_the_first_line_of_an_error_is_its_message_or_else_its_class(error, line) -> None:
    assert first_line(error) == line
