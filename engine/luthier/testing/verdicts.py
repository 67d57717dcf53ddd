"""What a check says where it does not pass: that a rule is broken, or that there was nothing to run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from luthier.components import Component, Problem, describe
from luthier.suggest import did_you_mean


class BrokenRuleError(AssertionError):
    """A plugin breaks a rule; the message says which component, what it did and what to do."""


class CannotRunError(Exception):
    """A check has nothing to run on; the message says what the author can give."""


def explain(component: Component, configuration: Mapping[str, Any], problems: Sequence[Problem]) -> str:
    """What is wrong with a component's configuration, or with its defaults, in one line."""
    names = [each.name for each in component.parameters]
    keys = []
    for problem in problems:
        told = ": ".join(filter(None, (".".join(map(str, problem.key)), problem.message)))
        hint = did_you_mean(str(problem.key[0]), names) if problem.unknown and len(problem.key) == 1 else ""
        keys.append(", ".join(filter(None, (told, hint))))
    own = configuration and any(not problem.key or problem.key[0] in configuration for problem in problems)
    whose = "the configuration that the test gives does not pass" if own else "the defaults do not pass"
    return f"{describe(component.function)}: {whose}: {'; '.join(keys)}"
