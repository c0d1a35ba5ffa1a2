"""MODEL_DIR/report.html: results, settings and times of a run, in one self-contained file."""

from system.console import log
from system.errors import first_line


def write_report_or_log(model_dir: str, *, only_missing: bool = False) -> str | None:
    """Write the report of a run and return its path; on any error, log one line and return None.

    A long training must not end in a traceback because of a picture. With `only_missing`, an existing report
    is kept.
    """
    try:
        # Imported here, because it takes half a second and a run needs it only at its end.
        from serving.report.page import find_report, write_report

        return (find_report(model_dir) if only_missing else None) or write_report(model_dir)
    except Exception as error:
        log(f"no report: {first_line(error)}; write it with python -m serving.report {model_dir}")
        return None
