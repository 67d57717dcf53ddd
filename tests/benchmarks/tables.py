"""Tables in the docs that benchmarks write: rows that were measured now, and the others as they were before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

END = "<!-- its end -->"


@dataclass(frozen=True)
class Table:
    """A table between two markers of a page.

    Attributes:
        page: the file.
        begin: the first marker; `END` is the other.
        headings: of the columns.
        keys: so many first cells tell a row from the others.
    """

    page: Path
    begin: str
    headings: Sequence[str]
    keys: int = 1

    def rows(self) -> list[list[str]]:
        """What the page has."""
        text = self.page.read_text(encoding="utf-8")
        lines = (line for line in text.partition(self.begin)[2].partition(END)[0].splitlines() if line.startswith("|"))
        return [line.strip("| ").split(" | ") for line in lines][2:]

    def write(self, measured: Iterable[Sequence[str]], caption: str, order: Iterable[Sequence[str]] = ()) -> None:
        """Put rows into the page, below a caption.

        Args:
            measured: they take the place of those with the same keys.
            caption: where and how they were measured.
            order: the keys of all rows that there may be; as they come, if not given.
        """
        known = {tuple(line[: self.keys]): line for line in (*self.rows(), *measured)}
        keys = [tuple(each) for each in order] or list(known)
        text = self.page.read_text(encoding="utf-8")
        head, _, rest = text.partition(self.begin)
        table = markdown(self.headings, [known[key] for key in keys if key in known])
        after = rest.partition(END)[2]
        self.page.write_text(f"{head}{self.begin}\n{caption}\n\n{table}\n{END}{after}", encoding="utf-8")


def markdown(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
