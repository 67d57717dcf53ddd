"""What the engine itself costs: a fully cached run, and its share of a real run.

Uses the run of `make quickstart`. The engine's share is the run's time less the time that workers were busy
with components (a pass over shards counts its workers' time divided by the number that worked side by side).
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from luthier import Run
from luthier.api import list_runs, open_store

RECIPE = Path(__file__).parents[2] / "examples" / "quickstart" / "recipe.yaml"
ROUNDS = 5


def did_everything(run: Run) -> bool:
    """Whether the run took nothing from earlier ones; two equal steps of its own share one result."""
    done = {node.key for step in run.steps if not step.cached for node in step.nodes}
    return all(node.key in done for step in run.steps for node in step.nodes)


def cached_run() -> tuple[float, float]:
    """Wall and CPU seconds of `luthier run` when every step is cached."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    command = [Path(sys.executable).parent / "luthier", "run", str(RECIPE), "--quiet"]
    subprocess.run(command, check=True, env={**os.environ, "LUTHIER_DISABLE": "mlflow"})  # as `make quickstart`
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print both figures."""
    store = open_store(RECIPE.parent)
    whole = [run for run in list_runs(store) if run.state == "done" and did_everything(run)]
    if not whole:
        sys.exit("bench_run: no complete uncached quickstart run in the store; run `make quickstart` first")
    run = whole[0]
    keys = {node.key for step in run.steps for node in step.nodes}
    records = [store.step(key) for key in sorted(keys)]
    busy = sum(record.details["busy"] for record in records if record)
    print(f"run {run.id}: {run.data.seconds:.1f} s, components busy {busy:.1f} s")
    print(f"the engine's share: {100 * (run.data.seconds - busy) / run.data.seconds:.2f}% (to reach: at most 2%)")
    times = [cached_run() for _ in range(ROUNDS)]
    wall, cpu = (statistics.median(column) for column in zip(*times, strict=True))
    print(f"a fully cached run: {wall:.2f} s wall, {cpu:.2f} s CPU, median of {ROUNDS} (to reach: at most 1.5 s)")


if __name__ == "__main__":
    main()
