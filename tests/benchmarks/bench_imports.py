"""What importing each installed plugin costs every `luthier` command.

    python tests/benchmarks/bench_imports.py [NAME_OR_FILE…]

CPU seconds of the import and the registration hooks, in a fresh process each, the median of the rounds;
how many modules it loads beside the engine's; and which heavy libraries are among them (there must be none).
"""

from __future__ import annotations

import statistics
import sys
from typing import Any

from luthier.discovery import installed_candidates
from luthier.testing.fresh_import import import_fresh

ROUNDS = 5


def measure(plugins: list[str], rounds: int = ROUNDS) -> dict[str, list[dict[str, Any]]]:
    """What each round found, taken in turns after one round to warm the file caches."""
    found: dict[str, list[dict[str, Any]]] = {plugin: [] for plugin in plugins}
    for number in range(rounds + 1):
        for plugin in plugins:
            answer = import_fresh(plugin)
            if number:
                found[plugin].append(answer)
    return found


def main() -> None:
    """Measure and print."""
    plugins = sys.argv[1:] or sorted(candidate.name for candidate in installed_candidates())
    print(f"{'plugin':<16} {'CPU s':>7} {'modules':>8}  heavy libraries")
    for plugin, answers in measure(plugins).items():
        seconds = statistics.median(answer["cpu_seconds"] for answer in answers)
        last = answers[-1]
        heavy = last["error"] or ", ".join(last["heavy"]) or "none"
        print(f"{plugin:<16} {seconds:7.3f} {last['modules']:8}  {heavy}")


if __name__ == "__main__":
    main()
