"""Write the report of a run again: MODEL_DIR/report.html.

    python -m serving.report MODEL_DIR

Training writes it at its end. It is one self-contained file with curves, times, confusions, figures of each
class, mistakes, and the experiment.
"""

import sys
from collections.abc import Sequence

from system.tensorflow_log import quiet_tensorflow

if __name__ == "__main__":
    quiet_tensorflow()

from serving.report.page import write_report
from system.command import Parser, command


@command("serving.report")
def main(argv: Sequence[str] | None = None) -> int:
    """Write the report, print its path and return the exit status."""
    parser = Parser("serving.report", __doc__)
    parser.add_argument("model_dir", metavar="MODEL_DIR", help="folder of the run, local or gs://")
    print(write_report(parser.parse_args(argv).model_dir))
    return 0


if __name__ == "__main__":
    sys.exit(main())
