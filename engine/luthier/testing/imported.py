"""Which libraries a distribution's code imports, and whether it declares them."""

from __future__ import annotations

import ast
import sys
from collections.abc import Collection, Iterable, Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

from luthier.environments import normalized, requirement_name

PART_OF = {"pydantic_core": "pydantic"}
"""Packages that another one requires in one exact version, and whose manual has users import from them."""


def undeclared_imports(files: Iterable[Path], own: Collection[str], requirements: Iterable[str]) -> set[str]:
    """The packages that code needs, and that are neither its own, Python's nor required.

    What stands in a `try` that catches `ImportError`, or below `if TYPE_CHECKING`, is not needed. Imports at
    any level count; those through `importlib` are not seen.

    Args:
        files: the Python files of a distribution.
        own: the packages that the distribution itself gives.
        requirements: its requirements, as the metadata has them.
    """
    required = {normalized(requirement_name(requirement)) for requirement in requirements}
    found = [each for path in files for each in executed_imports(ast.parse(path.read_text("utf-8")))]
    optional = {name for name, can_do_without in found if can_do_without}
    others = {name for name, _ in found} - optional - set(own) - sys.stdlib_module_names
    givers = packages_distributions()
    # An editable install is not among them; our distributions are named after their packages.
    return {
        name
        for name in others
        if not required & {normalized(giver) for giver in (PART_OF.get(name, name), *givers.get(name, ()))}
    }


def executed_imports(tree: ast.AST) -> Iterator[tuple[str, bool]]:
    """The packages that code imports at any level, and whether it can do without: not those for types alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            yield from executed_imports(ast.Module(node.orelse, []))
        elif isinstance(node, ast.Try) and any(h.type and "ImportError" in ast.unparse(h.type) for h in node.handlers):
            yield from ((name, True) for name, _ in executed_imports(ast.Module(node.body, [])))
            for handler in node.handlers:
                yield from executed_imports(handler)
            yield from executed_imports(ast.Module([*node.orelse, *node.finalbody], []))
        elif isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0], False
        else:
            yield from executed_imports(node)
