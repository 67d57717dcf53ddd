"""The tag of the run in MLflow whose model is champion."""

from __future__ import annotations

from luthier import InputError, PluginError, Run
from luthier.events import Promoted
from luthier_mlflow._client import connect, key, tracking_uri
from luthier_mlflow._recorder import logged_as


def tag_champion(run: Run, event: Promoted) -> None:
    """Tag a run `luthier.champion.NAME`, and take that tag off the run that it replaced.

    Raises:
        PluginError: if the run is not in MLflow, with the command that logs it.
    """
    uri = tracking_uri(run)
    client = connect(uri)
    tag = key("luthier.champion.", event.name)
    replaced = _replaced(run, event)
    before = logged_as(replaced, client, uri) if replaced else None
    if before and tag in client.get_run(before).data.tags:
        client.delete_tag(before, tag)
    found = logged_as(run, client, uri)
    if found is None:
        again = f"Log it: python -m luthier_mlflow {run.path}"
        raise PluginError(f"the run {run.id}, which is champion {event.name!r} now, is not in MLflow", again)
    how = "restored" if event.restored else "promoted"
    why = f": {event.why}" if event.why else ""
    client.set_tag(found, tag, f"number {event.number}, {how} by {event.who}{why}")


def _replaced(run: Run, event: Promoted) -> Run | None:
    """The run that was champion before; None where there was none, it was this one, or it is gone."""
    if event.replaced in ("", run.id):
        return None
    try:
        return Run.at(run.path.parent / event.replaced)
    except InputError:
        return None
