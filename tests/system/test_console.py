import pytest

from system.console import log


def test_a_logged_line_is_plain_text_in_one_piece(capsys: pytest.CaptureFixture) -> None:
    line = "[bold]not markup[/bold] " + "x" * 200
    log(line)
    assert capsys.readouterr().out == line + "\n"
