"""What the recipe `pruned-curve` found: models of several depths, healed by the same few steps, and delivered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench_quality import interval, records, value_of
from compression_speed import weight_bytes

from luthier import Run

RECIPE = Path(__file__).parents[2] / "examples" / "purposes" / "pruned-curve.yaml"
HEADINGS = (
    *("layers of 30", "million parameters", "KL of the cut", "KL healed", "ROUGE-L healed", "difference (95%)"),
    *("MB in 4 bits", "ROUGE-L in 4 bits", "difference (95%)", "healing, minutes", "measured"),
)
WHOLE = "of-the-whole"
METRIC = "rougeL"


def rows(run: Run) -> Iterator[list[str]]:
    """A row for each depth, the deepest first; differences are from the whole model, on the same packages."""
    of_the_whole = records(run, WHOLE)
    whole = run.step("vocabulary").metrics["parameters_before"]
    yield [
        "30, all tokens",
        f"{whole / 1e6:.1f}",
        "",
        "",
        f"{value_of(of_the_whole, METRIC):.4f}",
        *[""] * 5,
        run.data.started[:10],
    ]
    for depth in depths(run):
        cut, healed = run.step(f"cut-to-{depth}").metrics, run.step(f"healed-{depth}").metrics
        yield [
            *(str(depth), f"{cut['parameters'] / 1e6:.1f}", f"{cut['mean_kl']:.2f}", f"{healed['teacher_kl']:.2f}"),
            *_beside(run, f"of-{depth}", of_the_whole),
            f"{weight_bytes(run.model(f'genai-{depth}').path) / 1e6:.1f}",
            *_beside(run, f"delivered-{depth}", of_the_whole),
            *(f"{(run.seconds(f'healed-{depth}') or 0) / 60:.0f}", run.data.started[:10]),
        ]


def depths(run: Run) -> list[int]:
    """The layers that are left, of each model that was healed."""
    ids = [step.id for step in run.steps]
    return sorted((int(name.removeprefix("healed-")) for name in ids if name.startswith("healed-")), reverse=True)


def _beside(run: Run, validator: str, others: Sequence[Mapping[str, Any]]) -> list[str]:
    """A metric, and its difference from that of other records with the paired interval."""
    mine = records(run, validator)
    low, high = interval(METRIC, mine, others, run.data.seed)
    value = value_of(mine, METRIC)
    return [f"{value:.4f}", f"{value - value_of(others, METRIC):+.4f} ({low:+.4f} to {high:+.4f})"]
