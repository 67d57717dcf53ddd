"""Text and numbers as people read them. Texts come from documents, so they are hostile until shown."""

from __future__ import annotations

import datetime
import json
import math
from typing import Any

MINUTE, HOUR = 60, 3600
NONE = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"

_INVISIBLE = {
    *range(0x7F, 0xA0),  # delete and the C1 controls
    0x61C, 0x180E, 0x200B, 0x200E, 0x200F, 0x2028, 0x2029, 0x2060, 0xFEFF,
    *range(0x202A, 0x202F), *range(0x2066, 0x206A),  # these turn the direction of what follows
    *range(0xFFF9, 0xFFFC), 0xFFFE, 0xFFFF,
}  # fmt: skip
_PICTURES = {code: 0x2400 + code for code in range(0x20) if code not in (0x09, 0x0A)}
_SHOWN: dict[int, int | str] = {**_PICTURES, **{code: f"⟨U+{code:04X}⟩" for code in _INVISIBLE}}


def displayable(text: str) -> str:
    r"""The text with everything that a page cannot hold, or a reader cannot see, made visible.

    Control characters become their pictures (`␀`), characters without a width and those that turn the
    direction of text become `⟨U+202E⟩`, lone surrogates become `\ud800`. Tabs and line ends stay.
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8").translate(_SHOWN)


def clip(text: str, limit: int) -> str:
    """At most `limit` characters, with an ellipsis where something is left out."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def number(value: float | None) -> str:
    """A number with four significant digits (three below one), or all digits of a whole one; a dash for none."""
    if value is None:
        return NONE
    if isinstance(value, float) and not math.isfinite(value):
        return "not a number" if math.isnan(value) else ("∞" if value > 0 else f"{MINUS}∞")
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}".replace("-", MINUS)
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace("-", MINUS)
    text = f"{value:.2e}" if abs(value) < 1e-4 else f"{value:.3g}" if abs(value) < 1 else f"{value:.4g}"
    return text.replace("-", MINUS)


def signed(value: float) -> str:
    """A difference, always with its sign."""
    return number(value) if value < 0 else f"+{number(value)}"


def size(count: float) -> str:
    """Bytes in decimal units, three significant digits."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def duration(seconds: float) -> str:
    """A duration in the two units that matter."""
    if seconds < 0.1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return f"{whole // MINUTE} min {whole % MINUTE} s"
    return f"{whole // HOUR} h {whole % HOUR // MINUTE} min"


def moment(iso: str) -> str:
    """A time in ISO 8601 as `22 November 2026, 22:40 UTC`; what is no time stays as it is."""
    try:
        time = datetime.datetime.fromisoformat(iso).astimezone(datetime.UTC)
    except ValueError:
        return displayable(iso)
    return f"{time.day} {time:%B %Y, %H:%M} UTC"


def value_text(value: Any) -> str:
    """Any value of a table or a configuration, as text."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return number(value)
    if isinstance(value, str):
        return displayable(value)
    return displayable(json.dumps(value, ensure_ascii=False, default=str))


def metric_title(name: str) -> str:
    """A metric's name as people write it: `rougeL` as ROUGE-L, `mean_kl` as mean KL."""
    known = {
        "rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L", "rougeLsum": "ROUGE-Lsum",
        "lead_rougeL": "baseline, no model: ROUGE-L of the prompt's first sentence",
        "mean_kl": "mean KL divergence", "top1_agreement": "top-1 agreement",
    }  # fmt: skip
    return known.get(name) or displayable(name).replace("_", " ").strip()


def setting(text: str) -> str:
    r"""A parameter's text for Markdown: as `cell`, but quoted (`"a\nb"`) where a cell would lose white space."""
    return cell(text if text == " ".join(text.split()) else json.dumps(text, ensure_ascii=False))


def cell(value: Any) -> str:
    """A value as text that Markdown and HTML take as nothing but text, in one line."""
    text = " ".join(value_text(value).split())
    for special in "\\`*_[]|#!~":
        text = text.replace(special, f"\\{special}")
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
