"""Plots as PNG files."""

import io
from typing import Any

from system.files import write_bytes


def save_plot(figure: Any, path: str) -> None:
    """Write a matplotlib Figure as a PNG file, local or gs://, atomically."""
    # Its import takes half a second, which most commands need not wait for.
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    content = io.BytesIO()
    FigureCanvasAgg(figure).print_png(content)
    write_bytes(path, content.getvalue())
