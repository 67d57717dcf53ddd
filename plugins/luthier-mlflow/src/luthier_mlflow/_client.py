"""Which server, which experiment; and mlflow itself, quiet."""

from __future__ import annotations

import logging
import os
import re
from typing import TYPE_CHECKING

from luthier import Run

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

TRACKING_URI = "MLFLOW_TRACKING_URI"
EXPERIMENT = "MLFLOW_EXPERIMENT_NAME"
DATABASE = "mlflow.db"
ARTIFACTS = "mlflow-artifacts"


def tracking_uri(run: Run) -> str:
    """What MLFLOW_TRACKING_URI names; otherwise a SQLite database in the run's store."""
    return os.environ.get(TRACKING_URI) or f"sqlite:///{(run.store.root / DATABASE).as_posix()}"


def connect(uri: str) -> MlflowClient:
    """A client; the import takes seconds.

    mlflow counts how it is used and sends that home, which a tool that promises to work offline must not.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.tracking import MlflowClient

    if "MLFLOW_LOGGING_LEVEL" not in os.environ:
        for name in ("mlflow", "alembic"):  # Its progress with tables would break the display.
            logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=uri)


def experiment(client: MlflowClient, run: Run) -> str:
    """The id of the experiment, which is made if there is none: MLFLOW_EXPERIMENT_NAME, or the recipe's name."""
    from mlflow.exceptions import MlflowException

    name = os.environ.get(EXPERIMENT) or run.data.recipe
    found = client.get_experiment_by_name(name)
    if found is None:
        # Beside the database: mlflow's own default is a directory where the command happens to be called.
        place = None if os.environ.get(TRACKING_URI) else (run.store.root / ARTIFACTS).as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=place))
        except MlflowException:
            found = client.get_experiment_by_name(name)  # Another run may have made it just now.
            if found is None:
                raise
    return str(found.experiment_id)


def key(*parts: str) -> str:
    """A name that mlflow takes for a parameter, metric or tag."""
    return re.sub(r"[^/\w.\- :]", "_", "".join(parts))[:250]
