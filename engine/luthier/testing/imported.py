"""Which libraries a distribution's code imports, and whether it declares them and no others."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution, packages_distributions
from pathlib import Path
from typing import TYPE_CHECKING

from luthier.distributions import normalized
from luthier.environments import EXTRA

if TYPE_CHECKING:
    from packaging.requirements import Requirement

PART_OF = {"pydantic_core": "pydantic"}
"""Packages that another one requires in one exact version, and whose manual has users import from them."""

_SCRIPTS = ("console_scripts", "gui_scripts")
_HERE = re.compile(r"\b(sys\.platform|sys\.version_info|os\.name|platform\.\w+)\b")


def undeclared_imports(files: Iterable[Path], own: Collection[str], requirements: Iterable[str]) -> set[str]:
    """The packages that code needs, and that are neither its own, Python's nor required.

    What stands in a `try` that catches `ImportError`, below `if TYPE_CHECKING`, or below an `if` that asks for
    the platform or Python's version is not needed. Imports at any level count; those through `importlib` are
    not seen. A requirement counts where its marker holds: here, without an extra or with `environment`.

    Args:
        files: the Python files of a distribution.
        own: the packages that the distribution itself gives.
        requirements: its requirements, as the metadata has them.
    """
    required = {normalized(requirement.name) for requirement in _holding(requirements)}
    found = [each for tree in _trees(files) for each in executed_imports(tree)]
    optional = {name for name, can_do_without in found if can_do_without}
    others = {name for name, _ in found} - optional - set(own) - sys.stdlib_module_names
    givers = packages_distributions()
    # An editable install is not among them; our distributions are named after their packages.
    return {
        name
        for name in others
        if not required & {normalized(giver) for giver in (PART_OF.get(name, name), *givers.get(name, ()))}
    }


def unused_requirements(files: Iterable[Path], requirements: Sequence[str]) -> set[str]:
    """The distributions that are required and that nothing imports, of those of which that can be told.

    Told is only of what is an ordinary requirement and is installed. Used without an import of the code's own
    are: what another requirement names or imports (a backend, or a bound on the version of what that one uses),
    what is found by an entry point (a plugin), and what the code names in a string of its own.

    Args:
        files: the Python files of a distribution.
        requirements: its requirements, as the metadata has them.
    """
    trees = list(_trees(files))
    used = {name for tree in trees for name in _imported(tree)} | {name for tree in trees for name in _named(tree)}
    required = {normalized(each.name): _installed(each.name) for each in _holding(requirements, extras=("",))}
    packages: dict[str, set[str]] = {}
    for package, givers in packages_distributions().items():
        for giver in givers:
            packages.setdefault(normalized(giver), set()).add(package)
    unused = set()
    for name, found in required.items():
        gives = packages.get(name, set()) | {name.replace("-", "_")}
        if found is None or name == "luthier" or used & {*gives, name} or _is_plugin(found):
            continue
        others = [other for key, other in required.items() if other is not None and key != name]
        if not any(_requires(other, name) or _imports(other, gives) for other in others):
            unused.add(name)
    return unused


def _holding(requirements: Iterable[str], extras: Sequence[str] = ("", EXTRA)) -> list[Requirement]:
    from packaging.requirements import Requirement

    parsed = [Requirement(line) for line in requirements]
    return [
        each
        for each in parsed
        if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in extras)
    ]


def _installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def _is_plugin(found: Distribution) -> bool:
    return any(point.group not in _SCRIPTS for point in found.entry_points)


def _requires(other: Distribution, name: str) -> bool:
    from packaging.requirements import Requirement

    return any(normalized(Requirement(line).name) == name for line in other.requires or ())


def _imports(other: Distribution, packages: Collection[str]) -> bool:
    """Whether an installed distribution's code imports one of the packages; read as text, for some are large."""
    names = "|".join(map(re.escape, sorted(packages)))
    imported = re.compile(rf"^\s*(?:import|from)\s+(?:{names})\b".encode(), re.MULTILINE)
    paths = (Path(str(file.locate())) for file in other.files or () if file.suffix == ".py")
    return any(imported.search(path.read_bytes()) for path in paths if path.is_file())


def _trees(files: Iterable[Path]) -> Iterator[ast.Module]:
    return (ast.parse(path.read_text("utf-8")) for path in files)


def _imported(tree: ast.AST) -> Iterator[str]:
    """Every package that code imports, for types alone too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _named(tree: ast.AST) -> Iterator[str]:
    """What strings name: `"scipy"` and `"scipy.linalg"` both name `scipy`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value.partition(".")[0]


def executed_imports(tree: ast.AST) -> Iterator[tuple[str, bool]]:
    """The packages that code imports at any level, and whether it can do without: not those for types alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            yield from executed_imports(ast.Module(node.orelse, []))
        elif isinstance(node, ast.If) and _HERE.search(ast.unparse(node.test)):
            yield from ((name, True) for name, _ in executed_imports(ast.Module([*node.body, *node.orelse], [])))
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
