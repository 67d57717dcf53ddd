"""What plugins may use of the engine: the package `luthier` itself and a few modules; all else is its own."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import luthier

PUBLIC_MODULES = frozenset(
    {
        "luthier",
        "luthier.channel",
        "luthier.errors",
        "luthier.events",
        "luthier.hookspecs",
        "luthier.jsonlines",
        "luthier.options",
        "luthier.suggest",
        "luthier.testing",
    }
)
"""The modules that plugins may import from; of `luthier` itself, what `luthier.__all__` names."""


def private_imports(code: str) -> Iterator[tuple[int, str]]:
    """What a plugin's code imports of the engine that is not public, with the line; at any level, for types too."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            found = [name for name in names if name.startswith("luthier.") and name not in PUBLIC_MODULES]
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found = [f"{node.module}.{alias.name}" for alias in node.names if _is_private(node.module, alias.name)]
        else:
            continue
        yield from ((node.lineno, name) for name in found)


def _is_private(module: str, name: str) -> bool:
    if module == "luthier":
        return name not in luthier.__all__ and f"luthier.{name}" not in PUBLIC_MODULES
    return module.startswith("luthier.") and (module not in PUBLIC_MODULES or name.startswith("_"))
