"""Connected components by union-find."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class Union:
    """A forest over 0 … size-1; the root of a component is its least member, whatever the order of joins."""

    def __init__(self, size: int) -> None:
        self._parent = list(range(size))

    def find(self, member: int) -> int:
        """The least member of its component."""
        parent = self._parent
        while parent[member] != member:
            parent[member] = parent[parent[member]]
            member = parent[member]
        return member

    def join(self, one: int, other: int) -> None:
        """Make two components one."""
        one, other = self.find(one), self.find(other)
        if one != other:
            self._parent[max(one, other)] = min(one, other)


def linked(*relations: Sequence[str]) -> list[str]:
    """The component of each row, where rows that share a value of any relation belong together.

    Args:
        relations: for each relation a value for each row; all of one length.

    Returns:
        For each row the least value of the first relation within the row's component, so a component's
        name does not depend on the order of rows.
    """
    names = sorted(set(relations[0]))
    nodes = {name: node for node, name in enumerate(names)}
    union = Union(len(names))
    for relation in relations[1:]:
        _join_equal(union, [nodes[name] for name in relations[0]], relation)
    return [names[union.find(nodes[name])] for name in relations[0]]


def _join_equal(union: Union, nodes: Iterable[int], values: Sequence[str]) -> None:
    first: dict[str, int] = {}
    for node, value in zip(nodes, values, strict=True):
        union.join(first.setdefault(value, node), node)
