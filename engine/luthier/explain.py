"""Why a step runs again: what differs between its ingredients then and now, in words."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

CONTENT = "sha256:"
"""How a key names the content behind a location."""

PREFIX = 12
"""Characters of a hash that people are shown."""


def explain(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Why a step runs again: what differs between the ingredients then and now."""
    if before == now:
        return "its result is no longer in the store"
    reasons: list[str] = []
    old, new = before.get("parts", []), now["parts"]
    if [part["component"] for part in old] != [part["component"] for part in new]:
        reasons.append(f"steps changed: {_names(old)} → {_names(new)}")
    else:
        for then, part in zip(old, new, strict=True):
            reasons += _explain_part(then, part, several=len(new) > 1)
    for name, value in now["inputs"].items():
        if before.get("inputs", {}).get(name) != value:
            reasons.append(f"its input changed: {name}")
    for name, runtime in now["runtimes"].items():
        reasons += _explain_part(before.get("runtimes", {}).get(name, {}), runtime, several=True)
    for name in ("seed", "platform"):
        if before.get(name) != now.get(name):
            reasons.append(f"{name} changed: {before.get(name)} → {now.get(name)}")
    return "; ".join(dict.fromkeys(reasons)) or "it was done differently"


def _names(parts: Collection[Mapping[str, Any]]) -> str:
    return ", ".join(part["component"] for part in parts) or "none"


def _explain_part(then: Mapping[str, Any], now: Mapping[str, Any], *, several: bool) -> list[str]:
    reasons = []
    where = f" of {now['component']}" if several else ""
    old, new = then.get("config", {}), now.get("config", {})
    changed: dict[str, list[str]] = {"configuration": [], "data": []}
    for name in sorted({*old, *new}):
        was, value = old.get(name), new.get(name)
        if was != value:
            kind = "data" if is_content(was) and is_content(value) else "configuration"
            changed[kind].append(f"{name} {_short(was)} → {_short(value)}")
    reasons += [f"{kind}{where} changed: {', '.join(names)}" for kind, names in changed.items() if names]
    if then.get("code") != now["code"]:
        reasons.append(f"the code of {now['plugin']} changed")
    for name, version in now["requires"].items():
        was = then.get("requires", {}).get(name, "absent")
        if was.split()[0] != version.split()[0]:
            reasons.append(f"{name} changed: {was.split()[0]} → {version.split()[0]}")
        elif was != version:
            # Of another plugin the code counts too: installed from its source tree, it changes under one version.
            reasons.append(f"the code of {name} changed")
    if then.get("fingerprint") != now.get("fingerprint"):
        reasons.append(f"what {now['component']} reads changed")
    if any(then.get(name) != now.get(name) for name in ("contract", "declares")):
        reasons.append("the stage's contract changed")
    return reasons


def is_content(value: Any) -> bool:
    """Whether a value of a configuration stands for content behind a location, or is a list of such values."""
    if isinstance(value, list):
        return bool(value) and all(map(is_content, value))
    return isinstance(value, str) and value.startswith(CONTENT)


def shorten(content: str | list[Any]) -> str:
    """Content for people: its hash is cut, and loses the word that says what it is."""
    if isinstance(content, list):
        return f"[{', '.join(map(shorten, content))}]"
    return content.removeprefix(CONTENT)[:PREFIX]


def _short(value: Any) -> str:
    if is_content(value):
        return shorten(value)
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:39] + "…"
