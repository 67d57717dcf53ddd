"""What the terminal shows: a line for each route while the search goes on, and the table at its end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

from luthier_optimize.choosing import OBJECTIVES, keeps_to
from luthier_optimize.outcome import Outcome, Tried
from luthier_optimize.routes import Limits

NONE = "\N{EN DASH}"
REASON = 150
"""Characters of a failure's reason that the table shows; optimize.json has all of it."""
WIDE = 200


class Progress:
    """Tells on stderr what is done: drawn anew in a terminal, line by line elsewhere."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._status = Status("", console=self._console) if self._console.is_terminal else None

    def __enter__(self) -> Progress:
        if self._status:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._status:
            self._status.stop()

    def tell(self, what: str) -> None:
        """Say what is being done now."""
        if self._status:
            self._status.update(Text(what))

    def report(self, tried: Tried, number: int, of: int) -> None:
        """Say what became of a route."""
        place = f"{number}/{of} " if number else ""
        if tried.error:
            told = f"{'left out' if tried.left_out else 'failed'}: {_first_line(tried.error)}"
        else:
            told = f"{tried.bytes / 1e6:.4g} MB, perplexity {tried.perplexity:.4g}"
            told += f", mean KL {tried.mean_kl:.3g}" if number else ""
        self._console.print(Text(f"{place}{tried.label}: {told}"), soft_wrap=True)


def print_outcome(outcome: Outcome, page: Path, command: str) -> None:
    """Print the table, what failed, what was chosen, and the command that runs its recipe."""
    terminal = Console(highlight=False)
    console = terminal if terminal.is_terminal else Console(highlight=False, width=WIDE)
    console.print(table(outcome))
    for each in outcome.tried:
        if each.error:
            mark = ("·", "dim") if each.left_out else ("✗", "red")
            console.print(Text.assemble(mark, f" {each.label}: {_first_line(each.error)}"), soft_wrap=True)
    if outcome.chosen:
        chosen = outcome.named(outcome.chosen)
        console.print(Text.assemble(("✓ ", "green"), (f"{chosen.label}", "bold"), f": {summary(chosen)}"))
        console.print(Text(f"run it: {command}"), soft_wrap=True)
    console.print(Text(f"page: {page}"), soft_wrap=True)


def table(outcome: Outcome) -> Table:
    """The measured models, the best for the goal first, with the model as it is above them."""
    tasks = list(dict.fromkeys(name for each in (outcome.baseline, *outcome.measured) for name in each.task))
    heads = ["MB", "load s", "first ms", "prefill t/s", "decode t/s", "of fp32", "peak MB", "mean KL", "top-1", "ppl"]
    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column("")
    shown.add_column("ROUTE", overflow="fold")
    for head in [*heads, *tasks]:
        shown.add_column(head, justify="right", no_wrap=True)
    limits = Limits(outcome.limits.get("max_kl"), outcome.limits.get("max_size"))
    for each in (outcome.baseline, *ranked(outcome)):
        mark = "✓" if each.label == outcome.chosen else "*" if each.label in outcome.front else ""
        within = each is outcome.baseline or keeps_to(each, limits)
        shown.add_row(mark, each.label, *cells(each, tasks), style="bold" if mark == "✓" else "" if within else "dim")
    shown.caption = "✓ chosen   * on the Pareto front   dim: beyond the limits"
    shown.caption_justify = "left"
    return shown


def ranked(outcome: Outcome) -> list[Tried]:
    """The measured models, the best for the goal first; those without its measure last."""
    cost = OBJECTIVES[outcome.goal].cost
    return sorted(outcome.measured, key=lambda each: (cost(each) is None, cost(each) or 0.0))


def cells(tried: Tried, tasks: Sequence[str]) -> list[str]:
    """A model's numbers for people; a dash for what was not measured."""

    def number(value: float | None, form: str) -> str:
        return NONE if value is None else format(value, form)

    times = tried.times
    kl = NONE if tried.mean_kl is None else f"{tried.mean_kl:.4f} ±{tried.mean_kl_margin or 0:.4f}"
    return [
        f"{tried.bytes / 1e6:.4g}",
        number(times.get("load_seconds"), ".2f"),
        number(times.get("first_token_ms"), ".0f"),
        number(times.get("prefill"), ".0f"),
        number(times.get("decode"), ".1f"),
        number(tried.ratios.get("decode"), ".2f"),
        number(times.get("peak_megabytes"), ".0f"),
        kl if tried.mean_kl else "0",
        number(tried.top1, ".4f"),
        number(tried.perplexity, ".4g"),
        *(number(tried.task.get(name), ".4g") for name in tasks),
    ]


def summary(tried: Tried) -> str:
    """What a chosen model is, in a line."""
    parts = [f"{tried.bytes / 1e6:.4g} MB", f"mean KL {tried.mean_kl or 0:.4f}", f"top-1 {tried.top1 or 0:.3f}"]
    if "decode" in tried.ratios:
        parts.append(f"{tried.times['decode']:.1f} tokens/s, {tried.ratios['decode']:.2f} times float32")
    return ", ".join(parts)


def _first_line(text: str) -> str:
    line = next(iter(text.splitlines()), "")
    return line if len(line) <= REASON else f"{line[: REASON - 1]}…"
