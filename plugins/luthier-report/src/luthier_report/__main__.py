"""`python -m luthier_report RUN_DIRECTORY`: render a run's report again, and its model card."""

from __future__ import annotations

import sys
from pathlib import Path

from luthier import LuthierError
from luthier_report._render import render


def main(arguments: list[str]) -> int:
    """Render the run whose directory is named; print what was written. Gives the exit code."""
    if len(arguments) != 1 or arguments[0] in ("-h", "--help"):
        print("usage: python -m luthier_report RUN_DIRECTORY", file=sys.stderr)
        return 2
    try:
        for path in render(Path(arguments[0])):
            print(path)
    except LuthierError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
