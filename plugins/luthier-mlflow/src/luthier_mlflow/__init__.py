"""Luthier's runs in MLflow: configuration, metrics, learning curves, gates, artifacts, models.

The plugin has no components. It listens to what happens in a run, and loads mlflow when a run begins
that has something to do; a run whose every step is cached, with nothing new to judge, is none.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from luthier import PluginError, hookimpl

if TYPE_CHECKING:
    from luthier import Run
    from luthier.events import GateDecided, Promoted, RunFinished, RunStarted, StepFailed, StepFinished, StepStarted
    from luthier_mlflow._recorder import Recorder

_OPEN: dict[Path, Recorder] = {}
_GIVEN_UP: set[Path] = set()
"""Runs that a server did not take: to try again at each step could hold up the run for minutes each time."""


@hookimpl
def luthier_run_started(run: Run, event: RunStarted) -> None:
    """Open a run in MLflow, or the one of the same run that ended early."""
    _record(run, lambda recorder: None)


@hookimpl
def luthier_step_started(run: Run, event: StepStarted) -> None:
    """Tag what is being worked on."""
    _record(run, lambda recorder: recorder.tag({"luthier.step": event.step}))


@hookimpl
def luthier_step_finished(run: Run, event: StepFinished) -> None:
    """Log the step's configuration, metrics and curves."""
    _record(run, lambda recorder: recorder.log_step(event.step))


@hookimpl
def luthier_step_failed(run: Run, event: StepFailed) -> None:
    """Tag the error."""
    _record(run, lambda recorder: recorder.tag({"luthier.error": f"{event.step}: {event.message}"}))


@hookimpl
def luthier_gate_decided(run: Run, event: GateDecided) -> None:
    """Tag the decision."""
    _record(run, lambda recorder: recorder.tag_gate(event.step, event.metric))


@hookimpl(trylast=True)
def luthier_run_finished(run: Run, event: RunFinished) -> None:
    """Log the report, the recipe, the lock and the model, and end the run in MLflow."""
    try:
        _record(run, lambda recorder: recorder.finish(event.state))
    finally:
        _OPEN.pop(run.path, None)
        _GIVEN_UP.discard(run.path)


@hookimpl
def luthier_promoted(run: Run, event: Promoted) -> None:
    """Tag the run whose model is champion now, and take the tag off the one before."""
    from luthier_mlflow._champion import tag_champion

    tag_champion(run, event)


def _record(run: Run, do: Callable[[Recorder], None]) -> None:
    """Have the run's recorder do something; after an error nothing more of this run is logged.

    Raises:
        PluginError: for any error of mlflow's, with the command that logs the run once it has ended.
    """
    if run.path in _GIVEN_UP:
        return
    try:
        from luthier_mlflow._recorder import Recorder

        if run.path not in _OPEN:
            _OPEN[run.path] = Recorder(run)
        # Each hook is given the run as it is now, a copy of its own.
        _OPEN[run.path].run = run
        do(_OPEN[run.path])
    except Exception as error:
        _GIVEN_UP.add(run.path)
        again = f"Once the run has ended: python -m luthier_mlflow {run.path}"
        raise PluginError(f"MLflow does not get more of this run: {error}", again) from error
