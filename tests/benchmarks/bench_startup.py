"""How long the command line takes to start, beside a bare typer app with as many commands.

    python tests/benchmarks/bench_startup.py [RECIPE]

CPU seconds of the processes (user and system), taken in turns so that a change in the machine's load
hits all alike; the median of the rounds. With a RECIPE that has been run, also `luthier plan RECIPE`
and the run where nothing is left to do.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

ROUNDS = 15
LUTHIER = [sys.executable, "-m", "luthier.cli"]
HELP_AT_MOST = 1.3
LIST_AT_MOST = 1.5


def bare_app(directory: Path) -> Path:
    """Write a typer app, made as its tutorial makes one, with our groups and commands, which do nothing."""
    import typer

    from luthier.cli import app

    lines = ["import typer", "", "app = typer.Typer()"]

    def add(group: typer.core.TyperGroup, variable: str) -> None:
        for name, command in group.commands.items():
            function = f"{variable}_{name}".replace("-", "_")
            if isinstance(command, typer.core.TyperGroup) and command.commands:
                lines.append(f"{function} = typer.Typer()")
                lines.append(f"{variable}.add_typer({function}, name={name!r})")
                add(command, function)
            else:
                help_text = (command.help or "").splitlines()[0]
                lines.append(f"@{variable}.command({name!r})")
                lines.append(f"def {function}():\n    {help_text!r}")

    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    add(group, "app")
    path = directory / "bare.py"
    path.write_text("\n".join([*lines, "app()", ""]), encoding="utf-8")
    return path


def cpu_seconds(command: Sequence[str]) -> float:
    """The CPU seconds of one run of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)


def measure(commands: dict[str, list[str]], rounds: int = ROUNDS) -> dict[str, float]:
    """The median CPU seconds of each command, taken in turns after one round to warm the file caches."""
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for round_number in range(rounds + 1):
        for name, command in commands.items():
            seconds = cpu_seconds(command)
            if round_number:
                taken[name].append(seconds)
    return {name: statistics.median(values) for name, values in taken.items()}


def main() -> None:
    """Measure and print."""
    say: Callable[[str], None] = print
    with tempfile.TemporaryDirectory() as scratch:
        bare = [sys.executable, str(bare_app(Path(scratch)))]
        commands = {
            "python -c 'import typer'": [sys.executable, "-c", "import typer"],
            "bare --help": [*bare, "--help"],
            "luthier --help": [*LUTHIER, "--help"],
            "bare command": [*bare, "doctor"],
            "luthier plugins list": [*LUTHIER, "plugins", "list"],
        }
        for recipe in sys.argv[1:2]:
            commands["luthier plan"] = [*LUTHIER, "plan", recipe]
            commands["luthier run, all cached"] = [*LUTHIER, "run", recipe]
        medians = measure(commands)
    for name, seconds in medians.items():
        say(f"{name:<26} {seconds:6.3f} CPU s")
    for ours, theirs, limit in (
        ("luthier --help", "bare --help", HELP_AT_MOST),
        ("luthier plugins list", "bare command", LIST_AT_MOST),
    ):
        say(f"{ours} / {theirs}: {medians[ours] / medians[theirs]:.2f} (at most {limit})")


if __name__ == "__main__":
    main()
