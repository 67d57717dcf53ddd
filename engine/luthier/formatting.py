"""Numbers for people: durations, counts, metrics."""

from __future__ import annotations

from collections.abc import Mapping

KEY_METRICS = 3
"""How many of a step's metrics a line has room for."""


def format_seconds(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3m05s`, `2h07m`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def format_count(value: float) -> str:
    """A number of units: whole ones with thousands separated, else three digits."""
    return f"{value:,.0f}" if value == int(value) or value >= 100 else f"{value:.3g}"


def format_metrics(metrics: Mapping[str, float], limit: int = KEY_METRICS) -> str:
    """The first few metrics: `loss 2.314  tokens/s 910`. After `NAME_before` comes NAME, whenever it was recorded."""
    names = [each for name in metrics for each in (name, name.removesuffix("_before")) if each in metrics]
    return "  ".join(f"{name} {format_number(metrics[name])}" for name in list(dict.fromkeys(names))[:limit])


def format_number(value: float) -> str:
    """Four significant digits, without an exponent where that is readable."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def describe_counts(counts: Mapping[str, int]) -> str:
    """What became of a step's documents: `24,013 in, 23,900 kept, 113 dropped`."""
    parts = [f"{counts['documents_in']:,} in", f"{counts['kept']:,} kept"] if counts.get("documents_in") else []
    parts += [f"{counts[name]:,} {name}" for name in ("added", "changed", "dropped", "quarantined") if counts.get(name)]
    return ", ".join(parts)


def with_article(word: str) -> str:
    """A word with its indefinite article: `a model`, `an onnx`; one in backquotes keeps them."""
    return f"{'an' if word.lstrip('`')[:1] in tuple('aeiou') else 'a'} {word}"


def gate_mark(*, passed: bool, skipped: bool) -> str:
    """A gate's decision as a sign."""
    if skipped:
        return "-"
    return "✓" if passed else "✗"
