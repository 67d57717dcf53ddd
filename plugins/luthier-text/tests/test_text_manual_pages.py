"""Manual pages: on pages written here, and on those of this machine."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest

from luthier import Context, InputError, Location
from luthier.testing import arguments, make_context
from luthier_text import sources

pytestmark = pytest.mark.skipif(not shutil.which("groff"), reason="groff renders the pages: apt-get install groff-base")

PAGE = """.TH {upper} 1 "2026" "acme 1.0" "User Commands"
.SH NAME
{name} \\- {what}
.SH DESCRIPTION
A {name} that is described at such a length that a narrow page would have to break the line somewhere in
.B the middle
of it.
.SH OPTIONS
.TP
\\-h
Give help.
"""


@pytest.fixture
def manual(tmp_path: Path) -> Path:
    directory = tmp_path / "man"
    (directory / "man1").mkdir(parents=True)
    (directory / "man3").mkdir()
    for name in ("acme-log", "acme-add", "other"):
        page = PAGE.format(upper=name.upper(), name=name, what="does things — ça va")
        (directory / "man1" / f"{name}.1.gz").write_bytes(gzip.compress(page.encode()))
    (directory / "man1" / "alias.1").write_text('.\\" generated\n.so man1/other.1\n')
    (directory / "man1" / "linked.1.gz").symlink_to("other.1.gz")
    (directory / "man1" / "README").write_text("no page")
    (directory / "man3" / "call.3acme").write_text(PAGE.format(upper="CALL", name="call", what="a function"))
    return directory


def read(directory: Path, tmp_path: Path, **configuration: object) -> tuple[list[dict[str, str]], Context]:
    ctx = make_context(tmp_path / "context")
    configuration["path"] = Location(directory)
    frames = sources.manual_pages(ctx, **arguments(sources.manual_pages, **configuration))
    return [row for frame in frames for row in frame.iter_rows(named=True)], ctx


def test_pages_are_plain_text_with_a_line_for_each_paragraph(manual: Path, tmp_path: Path) -> None:
    rows, _ = read(manual, tmp_path)
    assert [row["name"] for row in rows] == ["acme-add", "acme-log", "other"]
    lines = rows[0]["text"].splitlines()
    assert lines[:2] == ["NAME", "       acme-add - does things — ça va"]
    assert any(line.strip().startswith("A acme-add that is") and line.endswith("the middle of it.") for line in lines)
    assert lines[-1].strip() == "-h     Give help."
    assert "User Commands" not in rows[0]["text"]


def test_pages_that_begin_alike_are_one_group_and_may_be_limited(manual: Path, tmp_path: Path) -> None:
    rows, _ = read(manual, tmp_path)
    assert [row["group"] for row in rows] == ["acme", "acme", "other"]
    limited, _ = read(manual, tmp_path, per_family=1)
    assert [row["group"] for row in limited] == ["acme", "other"]


def test_sections_are_chosen(manual: Path, tmp_path: Path) -> None:
    rows, _ = read(manual, tmp_path, sections=["3"])
    assert [(row["name"], row["section"], row["source"]) for row in rows] == [("call", "3acme", "man3/call.3acme")]


def test_a_damaged_page_is_quarantined_and_costs_no_other(manual: Path, tmp_path: Path) -> None:
    (manual / "man1" / "broken.1.gz").write_bytes(b"\x1f\x8b broken")
    rows, ctx = read(manual, tmp_path)
    assert len(rows) == 3
    set_aside = [json.loads(line) for line in ctx.quarantine_file.read_text(encoding="utf-8").splitlines()]
    assert [record["where"] for record in set_aside] == ["man1/broken.1.gz"]


def test_no_pages_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no manual pages in the sections 1"):
        read(tmp_path, tmp_path)


def test_without_groff_it_says_what_to_install(manual: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="groff, which is not installed") as refused:
        read(manual, tmp_path)
    assert "apt-get install groff-base" in str(refused.value.remedy)


def test_the_pages_of_this_machine(tmp_path: Path) -> None:
    manual = Path("/usr/share/man")
    if not (manual / "man1").is_dir():
        pytest.skip("this machine has no manual pages")
    rows, _ = read(manual, tmp_path, sections=["7"], per_family=1)
    assert all(row["text"] and not row["text"].startswith(".") for row in rows)


def test_nothing_is_at_the_far_end_of_a_line(manual: Path, tmp_path: Path) -> None:
    bare = PAGE.replace('"2026" "acme 1.0" "User Commands"', "") + ".SH NOTES\n.ce\nin the middle\n"
    (manual / "man1" / "acme-add.1.gz").write_bytes(gzip.compress(bare.format(upper="A", name="a", what="b").encode()))
    rows, _ = read(manual, tmp_path)
    assert rows[0]["text"].endswith("NOTES\nin the middle")
    assert " " * 200 not in rows[0]["text"]
