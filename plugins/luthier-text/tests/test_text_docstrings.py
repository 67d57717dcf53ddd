"""The docstrings source: on a made-up distribution, and on one that is installed wherever tests run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from luthier import Context, InputError
from luthier_text import sources
from luthier_text._docstrings import split_docstring
from luthier_text._installed import fingerprint

MODULE = '''"""A module with a summary.

And with a body that is longer than it.
"""

if True:
    class Kept:
        """A class under an if, as summary.

        Its body:
            indented, and longer than the summary.
        """

        async def method(self):
            """An async method's summary line.

            The body of the method, longer than its summary.
            """

            def inner():
                """A function within a function.

                Is not documented for anybody, so it is left out here.
                """

        def _private(self):
            """A private method's summary.

            With a body that is longer than the summary is.
            """

    def short():
        """Nothing but one line here."""
'''


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed distribution `demo-dist` with modules good, broken, vendored, private and test."""
    root = tmp_path / "site"
    files: dict[str, str | bytes] = {
        "demo/__init__.py": MODULE,
        "demo/broken.py": 'def (:\n    """A summary line here.\n\n    And a body that is long enough.\n    """',
        "demo/latin.py": b'"""Caf\xe9."""',
        "demo/_vendor/copied.py": MODULE,
        "demo/_hidden.py": MODULE,
        "demo/tests/test_demo.py": MODULE,
        "demo/script-name.py": MODULE,
        "demo/unlisted.py": MODULE,
    }
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    info = root / "demo_dist-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: Demo.Dist\nVersion: 1.2\n")
    (info / "RECORD").write_text("".join(f"{name},,\n" for name in files if "unlisted" not in name))
    monkeypatch.syspath_prepend(str(root))
    return root


def read(ctx: Context, **configuration: Any) -> pl.DataFrame:
    return pl.concat(list(sources.docstrings(ctx, **configuration)))


def test_rows_of_a_distribution(demo: Path, ctx: Context, quarantined: Callable[[], list[dict[str, Any]]]) -> None:
    frame = read(ctx, packages=["demo_dist"])
    assert frame.select("name", "kind", "summary").rows() == [
        ("demo", "module", "A module with a summary."),
        ("demo.Kept", "class", "A class under an if, as summary."),
        ("demo.Kept.method", "function", "An async method's summary line."),
    ]
    assert frame["text"].to_list()[1] == "Its body:\n    indented, and longer than the summary."
    assert frame.select("package", "source").unique().rows() == [("demo-dist", "demo/__init__.py")]
    assert sorted(record["where"] for record in quarantined()) == ["demo/broken.py", "demo/latin.py"]
    assert "demo" not in sys.modules


def test_private_and_tests_on_demand(demo: Path, ctx: Context) -> None:
    private = read(ctx, packages=["demo-dist"], private=True)
    assert set(private["source"]) == {"demo/__init__.py", "demo/_hidden.py"}
    assert "demo.Kept._private" in private["name"].to_list()
    assert set(read(ctx, packages=["demo-dist"], tests=True)["source"]) == {
        "demo/__init__.py",
        "demo/tests/test_demo.py",
    }


def test_limit_is_exact_and_stable(ctx: Context) -> None:
    whole = read(ctx, packages=["hypothesis"])
    some = read(ctx, packages=["hypothesis"], per_package=20)
    assert some.height == 20 < whole.height
    assert some.rows() == read(ctx, packages=["hypothesis"], per_package=20).rows()
    assert some["source"].n_unique() > 1
    assert set(some.rows()) <= set(whole.rows())
    assert some["source"].to_list() == sorted(some["source"].to_list(), key=lambda path: Path(path).parts)


def test_every_row_is_a_pair_to_learn_from(ctx: Context) -> None:
    frame = read(ctx, packages=["hypothesis", "polars"])
    assert frame.height > 500
    assert frame.filter(pl.col("summary").str.contains("\n")).is_empty()
    assert frame.filter(pl.col("text").str.len_chars() <= pl.col("summary").str.len_chars()).is_empty()


def test_a_package_that_is_not_installed_is_an_error(ctx: Context) -> None:
    with pytest.raises(InputError, match="'hypothesys' is not installed") as error:
        read(ctx, packages=["hypothesys"])
    assert "Did you mean hypothesis?" in error.value.remedy


def test_packages_without_docstrings_are_an_error(ctx: Context) -> None:
    with pytest.raises(InputError, match="no docstring"):
        read(ctx, packages=["luthier-text"])  # installed for development: its RECORD lists no module


def test_fingerprint_names_versions(demo: Path) -> None:
    assert fingerprint(["demo-dist"]).splitlines()[1:] == ["demo-dist==1.2"]
    before = fingerprint("installed")
    assert f"hypothesis=={metadata.version('hypothesis')}" in before
    (demo / "demo_dist-1.2.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: demo-dist\nVersion: 1.3\n")
    assert fingerprint("installed") != before


@pytest.mark.parametrize(
    ("docstring", "pair"),
    [
        ("One line of summary.", None),
        ("Two lines are\nno summary line.\n\nAnd a body, long enough for it.", None),
        ("Too short.\n\nA body that is longer than that.", None),
        ("A summary of words.\n\nShort.", None),
        ("A summary  of words.\n\n  A body that is\n    longer.", ("A summary of words.", "A body that is\n  longer.")),
        ("A summary of words.\n\nA body with a NUL \0 in it.", None),
        ("A summary of words.\n\nA body with a surrogate \ud800 in it.", None),
    ],
)
def test_split_docstring(docstring: str, pair: tuple[str, str] | None) -> None:
    assert split_docstring(docstring) == pair
