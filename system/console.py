"""Console output: lines and tables on stdout, progress bars on a terminal."""

from rich.console import Console

console = Console(highlight=False)
error_console = Console(highlight=False, stderr=True)


def log(line: str) -> None:
    """Print one line of plain text, above the progress bar when there is one."""
    console.print(line, markup=False, soft_wrap=True)
