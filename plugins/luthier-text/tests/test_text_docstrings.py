"""The docstrings source: on a made-up distribution, and on one that is installed wherever tests run."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from luthier import Context, Dataset, InputError
from luthier.frames import SourceRows
from luthier_text import cleaners, formatters, sources
from luthier_text._docstrings import split_docstring
from luthier_text._installed import fingerprint
from luthier_text.formatters import Split

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


def install(root: Path, name: str, files: dict[str, str | bytes], unlisted: str = "") -> None:
    """Make an installed distribution of version 1.2."""
    for file, content in files.items():
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    info = root / f"{name.lower().replace('.', '_').replace('-', '_')}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files if file != unlisted))


def documented(package: str, number: int) -> str:
    """A module whose docstring no other has."""
    words = [hashlib.md5(f"{package} {number} {n}".encode()).hexdigest()[:6] for n in range(30)]
    return f'"""A summary of {number}.\n\n{" ".join(words)}\n"""\n'


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed distribution `demo-dist` with modules good, broken, vendored, private and test."""
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
    root = tmp_path / "site"
    install(root, "Demo.Dist", files, unlisted="demo/unlisted.py")
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


def test_no_package_falls_on_two_sides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_dataset: Callable[..., Dataset], ctx: Context
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    packages = [f"package-{number:02}" for number in range(20)]
    for package in packages:
        # All objects have documents of their own, but the first two packages have a copied module too.
        folder = package.replace("-", "_")
        files: dict[str, str | bytes] = {f"{folder}/m{n}.py": documented(package, n) for n in range(4)}
        if package in packages[:2]:
            files[f"{folder}/copied.py"] = MODULE
        install(tmp_path, package, files)
    rows = SourceRows("docstrings", "docstrings")
    documents = pl.concat([rows.complete(frame) for frame in sources.docstrings(ctx, packages=packages)])
    assert documents["group"].to_list() == documents["package"].to_list()

    unique = pl.concat(list(cleaners.near_duplicates(make_dataset(documents.to_dict(), cuts=[9, 50]))))
    assert unique.height == documents.height - 3
    split = Split(valid=0.2, test=0.3)
    examples = pl.concat(list(formatters.summarization(make_dataset(unique.to_dict(), cuts=[30]), ctx, split=split)))

    packaged = examples.join(unique.select("id", "package"), on="id")
    assert set(packaged["split"]) == {"train", "valid", "test"}
    assert packaged.group_by("package").agg(pl.col("split").n_unique())["split"].max() == 1
    # The copy was dropped, and still what stood beside it is held together with what it was a copy of.
    groups = dict(packaged.select("package", "group").iter_rows())
    assert groups == {package: package for package in packages} | {packages[1]: packages[0]}


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
