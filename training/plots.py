"""Plots as PNG files, where matplotlib is installed."""

import importlib.util
import io
from typing import Any

from system.console import log
from system.files import write_bytes


def has_plots() -> bool:
    """Return whether plots can be drawn, and log how to get them if not."""
    found = importlib.util.find_spec("matplotlib") is not None
    if not found:
        log("no plot: pip install matplotlib")
    return found


def save_plot(figure: Any, path: str) -> None:
    """Write a matplotlib Figure as a PNG file, local or gs://, atomically."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    content = io.BytesIO()
    FigureCanvasAgg(figure).print_png(content)
    write_bytes(path, content.getvalue())
