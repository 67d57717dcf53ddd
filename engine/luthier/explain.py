"""Why a step runs again: what differs between its ingredients then and now, in words."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any


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
    changed = [
        f"{name} {_short(old.get(name))} → {_short(new.get(name))}"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]
    if changed:
        reasons.append(f"configuration{where} changed: {', '.join(changed)}")
    if then.get("code") != now["code"]:
        reasons.append(f"the code of {now['plugin']} changed")
    for name, version in now["requires"].items():
        was = then.get("requires", {}).get(name, "absent")
        if was != version:
            reasons.append(f"{name} changed: {was.split()[0]} → {version.split()[0]}")
    if then.get("fingerprint") != now.get("fingerprint"):
        reasons.append(f"what {now['component']} reads changed")
    if any(then.get(name) != now.get(name) for name in ("contract", "declares")):
        reasons.append("the stage's contract changed")
    return reasons


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:39] + "…"
