from collections.abc import Sequence

import pytest
import tensorflow as tf

from system.command import Parser, command, natural, positive, positives
from system.errors import UsageError, UserError


def parser() -> Parser:
    parser = Parser("package.module", "What it does.\n\n    as it is written")
    parser.add_argument("--images", type=positive, default=1)
    parser.add_argument("--seed", type=natural, default=0)
    parser.add_argument("--sizes", type=positives, default=(1,))
    return parser


def test_numbers_are_parsed() -> None:
    flags = parser().parse_args(["--images=3", "--seed=0", "--sizes=1,2,40"])
    assert (flags.images, flags.seed, flags.sizes) == (3, 0, (1, 2, 40))


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--images=0", "argument --images: '0' is not a whole number of at least 1"),
        ("--images=1.5", "argument --images: '1.5' is not a whole number of at least 1"),
        ("--seed=-1", "argument --seed: '-1' is not a whole number of at least 0"),
        ("--sizes=1,,2", "argument --sizes: '' is not a whole number of at least 1"),
    ],
)
def test_a_mistake_in_a_flag_is_one_line_and_status_2(argument, message, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        parser().parse_args([argument])
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"package.module: {message}; see --help\n"


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (
            "--image=3",
            "unknown flag --image; did you mean --images? See --help",
        ),  # no abbreviations
        ("--modle_dir=x", "unknown flag --modle_dir; did you mean --model_dir? See --help"),
        ("--zzz", "unknown flag --zzz; see --help"),
    ],
)
def test_an_unknown_flag_is_reported_before_a_required_one(argument, message, capsys) -> None:
    flags = parser()
    flags.add_argument("--model_dir", required=True)
    with pytest.raises(SystemExit) as stop:
        flags.parse_args([argument])
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"package.module: {message}\n"


def test_what_follows_two_dashes_is_no_flag() -> None:
    flags = parser()
    flags.add_argument("files", nargs="*")
    assert flags.parse_args(["--seed=1", "--", "--seed=2", "--x"]).files == ["--seed=2", "--x"]


def test_a_subcommand_reports_an_unknown_flag(capsys) -> None:
    parser = Parser("package.module")
    role = parser.add_subparsers(dest="role", required=True).add_parser("worker")
    role.add_argument("--port", required=True)
    with pytest.raises(SystemExit):
        parser.parse_args(["worker", "--prot=1"])
    error = capsys.readouterr().err
    assert error == "package.module worker: unknown flag --prot; did you mean --port? See --help\n"


def test_subcommands_report_their_mistakes_in_the_same_way(capsys) -> None:
    parser = Parser("package.module")
    role = parser.add_subparsers(dest="role", required=True).add_parser("worker")
    role.add_argument("--port", type=positive)
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(["worker", "--port=x"])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("package.module worker: argument --port: 'x'")


def test_help_shows_the_description_as_it_is_written(capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        parser().parse_args(["--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: python -m package.module")
    assert "What it does.\n\n    as it is written" in out


def ends_with(error: BaseException | None) -> int:
    @command("package.module")
    def main(argv: Sequence[str] | None = None) -> int:
        if error:
            raise error
        return 0

    return main([])


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UserError("no images"), 1, "no images"),
        (UsageError("--x=1: expected 2"), 2, "--x=1: expected 2"),
        (FileNotFoundError(2, "No such file", "x"), 1, "[Errno 2] No such file: 'x'"),
        (tf.errors.NotFoundError(None, None, "x; gone\nmore"), 1, "x; gone"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_what_a_user_can_fix_is_one_line_and_its_status(error, status, line, capsys) -> None:
    assert ends_with(error) == status
    assert capsys.readouterr().err == f"package.module: {line}\n"


def test_a_command_that_succeeds_prints_nothing_more(capsys) -> None:
    assert ends_with(None) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "error", [ValueError("a bug"), tf.errors.InvalidArgumentError(None, None, "a bug")]
)
def test_a_bug_stays_a_traceback(error) -> None:
    with pytest.raises(type(error)):
        ends_with(error)
