"""Descriptions of Debian packages: on catalogues written here, and on those that apt keeps where it does."""

from __future__ import annotations

import bz2
import gzip
import lzma
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier import Context, InputError, Location
from luthier_text import sources
from luthier_text._catalogues import APT_LISTS, catalogues, patterns
from luthier_text._debian import md5_of, paragraphs
from luthier_text._stanzas import APT_HELPER, read_stanzas, unpacked

LONG = " A tool\n that greets.\n .\n It can:\n  * say hello\n  * say\n    goodbye\n .\n Shared words."
TRANSLATIONS = {
    "en": [
        ("hello", "1", "greets  people", LONG),
        ("hello-doc", "2", "documentation", " Manuals.\n .\n Shared  WORDS."),
        ("other", "3", "something else", " Nothing in common."),
        ("copied", "4", "a copy", " Nobody translated this."),
        ("half", "5", "half done", " One paragraph.\n .\n Another."),
        ("short", "6", "no long description", ""),
    ],
    "fr": [
        ("hello", "1", "salue les gens", " Un outil\n qui salue."),
        ("other", "3", "autre chose", " Rien en commun."),
        ("other", "old", "autre chose", " D'une version passée."),
        ("copied", "4", "a copy", " Nobody translated this."),
        ("half", "5", "à moitié", " Un paragraphe.\n .\n <trans>"),
    ],
    "pt_BR": [("other", "3", "outra coisa", " Nada em comum.")],
}


def translation(language: str) -> str:
    return "\n".join(
        f"Package: {package}\nDescription-md5: {md5}\nDescription-{language}: {summary}\n{long}\n"
        for package, md5, summary, long in TRANSLATIONS[language]
    )


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    """A directory as apt keeps it."""
    directory = tmp_path / "lists"
    (directory / "partial").mkdir(parents=True)
    index = "Package: hello\nSection: games\nDescription: greets people\nDescription-md5: 1\n\nPackage: third\n"
    index += "Version: 2\nDescription: of an archive without translations\n With a long text.\n"
    (directory / "deb.example.org_debian_dists_stable_main_binary-amd64_Packages").write_text(index)
    name = "deb.example.org_debian_dists_stable_main_i18n_Translation-{}"
    (directory / f"{name.format('en')}.xz").write_bytes(lzma.compress(translation("en").encode()))
    (directory / f"{name.format('fr')}.gz").write_bytes(gzip.compress(translation("fr").encode()))
    (directory / f"{name.format('pt%5fBR')}.bz2").write_bytes(bz2.compress(translation("pt_BR").encode()))
    (directory / "deb.example.org_debian_dists_stable_InRelease").write_text("Origin: Debian\n")
    (directory / "lock").touch()
    return directory


def read(ctx: Context, path: Path, *languages: str) -> pl.DataFrame:
    return pl.concat(list(sources.debian_descriptions(ctx, path=Location(path), languages=list(languages))))


def test_descriptions_in_one_language(lists: Path, ctx: Context) -> None:
    frame = read(ctx, lists, "en")
    assert frame["package"].to_list() == ["copied", "half", "hello", "hello-doc", "other", "third"]
    row = frame.row(2, named=True)
    assert row["summary"] == "greets people"
    assert row["text"] == ("A tool that greets.\n\nIt can:\n* say hello\n* say\n  goodbye\n\nShared words.")
    assert set(frame["language"]) == {"en"}
    assert row["section"] == "games"
    assert frame["section"].null_count() == 5


def test_packages_that_share_a_paragraph_share_their_group(lists: Path, ctx: Context) -> None:
    groups = dict(read(ctx, lists, "en").select("package", "group").iter_rows())
    assert groups["hello"] == groups["hello-doc"] == "hello"
    assert groups["other"] == "other"


def test_pairs_are_joined_on_package_and_md5(lists: Path, ctx: Context) -> None:
    frame = read(ctx, lists, "en", "fr", "pt_BR")
    assert frame.select("package", "target_language", "translation", "summary_translation").rows() == [
        ("hello", "fr", "Un outil qui salue.", "salue les gens"),
        ("other", "fr", "Rien en commun.", "autre chose"),
        ("other", "pt_BR", "Nada em comum.", "outra coisa"),
    ]
    assert frame["group"].to_list() == ["hello", "other", "other"]
    assert frame["section"].to_list() == ["games", None, None]


def test_md5_is_the_archives() -> None:
    # As Debian 12's catalogue has it, of the package camv-rnd-doc.
    description = "Documentation for camv-rnd\n User manual and developer doc (html)."
    assert md5_of(description) == "2593b1399fc65f16aabbe4541d2a1e4e"


@pytest.mark.parametrize(
    ("languages", "message", "remedy"),
    [(["de"], "no catalogue in the language 'de'; there is en, fr, pt_BR", "Acquire::Languages=de")],
)
def test_a_language_without_catalogue(lists: Path, languages: list[str], message: str, remedy: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        catalogues(lists, languages)
    assert remedy in error.value.remedy


@pytest.mark.parametrize("name", ["", "nowhere"])
def test_no_catalogue_is_found_while_planning(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="has no catalogue of packages") as error:
        patterns(str(tmp_path / name), ["en"])
    assert "apt-get update" in error.value.remedy


def test_short_descriptions_alone_say_how_to_get_the_long_ones(tmp_path: Path, ctx: Context) -> None:
    (tmp_path / "x_Packages").write_text("Package: a\nDescription: short\nDescription-md5: 1\n")
    with pytest.raises(InputError, match="no long description in the language 'en'") as error:
        read(ctx, tmp_path, "en")
    assert "Acquire::Languages=en" in error.value.remedy


def test_a_damaged_catalogue_is_an_error(lists: Path, ctx: Context) -> None:
    damaged = next(lists.glob("*Translation-fr.gz"))
    damaged.write_bytes(damaged.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"Translation-fr\.gz cannot be read"):
        read(ctx, lists, "en", "fr")


def test_only_what_is_read_decides_whether_it_runs_again(lists: Path) -> None:
    matched = {file.name for pattern in patterns(str(lists), ["en", "pt_BR"]) for file in lists.glob(pattern)}
    assert {name.rpartition("_")[2] for name in matched} == {
        "Packages",
        "Translation-en.xz",
        "Translation-pt%5fBR.bz2",
    }


FIELDS = st.dictionaries(
    st.sampled_from(["Package", "Version", "Description-en"]),
    st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1), min_size=1, max_size=4),
    min_size=1,
)


@given(st.lists(FIELDS, max_size=5), st.sampled_from([b"\n", b"\r\n"]), st.integers(1, 3))
def test_what_is_written_is_read(stanzas: list[dict[str, list[str]]], end: bytes, blank: int) -> None:
    blocks = [
        end.join(f"{name}: {(end.decode() + ' ').join(lines)}".encode() for name, lines in stanza.items()) + end
        for stanza in stanzas
    ]
    content = (end * blank).join(blocks)
    expected = [{name.lower(): "\n ".join(lines) for name, lines in stanza.items()} for stanza in stanzas]
    wanted = {"package", "version", "description-en"}
    assert list(read_stanzas(content.splitlines(keepends=True), wanted)) == expected


@given(st.lists(st.binary(max_size=30), max_size=20))
def test_any_bytes_are_read(lines: list[bytes]) -> None:
    for stanza in read_stanzas(lines, {"package", ""}):
        assert set(stanza) <= {"package", ""}


@given(st.lists(st.lists(st.from_regex(r"[a-z]{1,5}( [a-z]{1,5}){0,3}", fullmatch=True), min_size=1), min_size=1))
def test_paragraphs_come_back(blocks: list[list[str]]) -> None:
    markup = "\n .\n".join("\n".join(f" {line}" for line in block) for block in blocks)
    assert paragraphs(markup) == "\n\n".join(" ".join(block) for block in blocks)


@pytest.mark.skipif(not Path(APT_HELPER).exists(), reason="apt is not installed")
def test_apt_unpacks_what_python_does_not(tmp_path: Path) -> None:
    # An LZ4 frame of one stored block, as the format's description has it: magic, descriptor, block, end.
    content = b"Package: a\n"
    frame = b"\x04\x22\x4d\x18\x60\x40\x82" + (0x80000000 | len(content)).to_bytes(4, "little") + content + bytes(4)
    (tmp_path / "x_Packages.lz4").write_bytes(frame)
    with unpacked(tmp_path / "x_Packages.lz4") as stream:
        assert stream.read() == content
    (tmp_path / "y_Packages.lz4").write_bytes(b"no lz4 at all")
    with pytest.raises(InputError, match="cannot be read"), unpacked(tmp_path / "y_Packages.lz4") as stream:
        stream.read()


def test_what_apt_keeps_here(ctx: Context) -> None:
    try:
        found = catalogues(Path(APT_LISTS), ["en"])
    except InputError as error:
        pytest.skip(f"{error}")
    smallest = min((catalogue.path for catalogue in found), key=lambda path: path.stat().st_size)
    with unpacked(smallest) as stream:
        stanzas = list(read_stanzas(stream, {"package", "description-md5"}))
    assert all(stanza["package"] and len(stanza["description-md5"]) == 32 for stanza in stanzas)
