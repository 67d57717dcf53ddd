"""`python -m luthier_mlflow RUN_DIRECTORY`: log a run that has ended, or what is missing of it."""

from __future__ import annotations

import sys
from pathlib import Path

from luthier import LuthierError, Run


def main(arguments: list[str]) -> int:
    """Log the run whose directory is named; print its id in MLflow. Gives the exit code."""
    if len(arguments) != 1 or arguments[0] in ("-h", "--help"):
        print("usage: python -m luthier_mlflow RUN_DIRECTORY", file=sys.stderr)
        return 2
    try:
        print(log_run(Run.at(Path(arguments[0]))))
    except LuthierError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def log_run(run: Run) -> str:
    """Log a run as its hooks would have; gives its id in MLflow.

    Raises:
        LuthierError: if it has not ended.
    """
    from luthier_mlflow._recorder import Recorder

    if run.state == "running":
        raise LuthierError(f"the run {run.id} has not ended", "It is logged while it runs.")
    recorder = Recorder(run)
    for step in run.steps:
        if step.state == "done":
            recorder.log_step(step.id)
    for gate in run.gates:
        recorder.tag_gate(gate.step, gate.metric)
    recorder.finish(run.state)
    return recorder.id


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
