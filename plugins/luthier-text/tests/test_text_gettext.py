"""Translations from .po and .mo files."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import polib
import pytest

from luthier import Context, InputError, Location
from luthier.components import ConfigurationError
from luthier.core_stages import STAGES
from luthier.registering import read_component
from luthier_text import sources
from luthier_text._gettext import plural_forms

HEADER = 'msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\nLanguage: {}\\nPlural-Forms: {}\\n"\n\n'
FRENCH = "nplurals=2; plural=(n > 1);"
RUSSIAN = "nplurals=3; plural=(n%10==1 && n%100!=11 ? 0 : n%10>=2 && n%10<=4 && (n%100<12 || n%100>14) ? 1 : 2);"
PO = """
msgid "Yes"
msgstr "Oui"

msgctxt "month"
msgid "May"
msgstr "mai"

#, fuzzy
msgid "No"
msgstr "Nonne"

msgid "Later"
msgstr ""

msgid "%d file"
msgid_plural "%d files"
msgstr[0] "%d fichier"
msgstr[1] "%d fichiers"

#~ msgid "Gone"
#~ msgstr "Parti"
"""


@pytest.fixture
def locale(tmp_path: Path) -> Path:
    """A directory with a French file and its compiled form, a Russian one and a broken one."""
    french = tmp_path / "locale/fr/LC_MESSAGES/app.po"
    french.parent.mkdir(parents=True)
    french.write_text(HEADER.format("", FRENCH) + PO, encoding="utf-8")
    polib.pofile(str(french)).save_as_mofile(str(french.with_suffix(".mo")))
    russian = '\nmsgid "yes"\nmsgstr "да"\n\nmsgid "%d file"\nmsgid_plural "%d files"\n'
    russian += 'msgstr[0] "%d файл"\nmsgstr[1] "%d файла"\nmsgstr[2] "%d файлов"\n'
    (tmp_path / "locale/app.po").write_text(HEADER.format("ru", RUSSIAN) + russian, encoding="utf-8")
    (tmp_path / "locale/broken.po").write_text('msgid "a"\nnonsense\n', encoding="utf-8")
    return tmp_path / "locale"


def read(ctx: Context, path: Path | None = None, **configuration: Any) -> pl.DataFrame:
    return pl.concat(list(sources.gettext(ctx, path=Location(path) if path else None, **configuration)))


def test_messages_with_sound_translations(
    locale: Path, ctx: Context, quarantined: Callable[[], list[dict[str, Any]]], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        frame = read(ctx, locale)
    assert frame.select("text", "translation", "target_language", "context", "file").rows() == [
        ("yes", "да", "ru", None, "app.po"),
        ("%d file", "%d файл", "ru", None, "app.po"),
        ("%d files", "%d файлов", "ru", None, "app.po"),
        ("Yes", "Oui", "fr", None, "fr/LC_MESSAGES/app.po"),
        ("May", "mai", "fr", "month", "fr/LC_MESSAGES/app.po"),
        ("%d file", "%d fichier", "fr", None, "fr/LC_MESSAGES/app.po"),
        ("%d files", "%d fichiers", "fr", None, "fr/LC_MESSAGES/app.po"),
    ]
    assert set(frame["language"]) == {"en"}
    assert [record["where"] for record in quarantined()] == ["broken.po"]
    for reason in ("fuzzy", "obsolete", "untranslated"):
        assert f"left out: 1 messages, {reason}" in caplog.text


def test_translations_of_one_message_share_their_group(locale: Path, ctx: Context) -> None:
    groups = read(ctx, locale).group_by(pl.col("text").str.to_lowercase()).agg(pl.col("group").n_unique())
    assert groups["group"].to_list() == [1] * 4


def test_compiled_files_give_the_same(locale: Path, ctx: Context) -> None:
    columns = ["text", "translation", "target_language", "context"]
    written = read(ctx, locale, languages=["fr"]).select(columns)
    (locale / "fr/LC_MESSAGES/app.po").unlink()
    compiled = read(ctx, locale, languages=["fr"]).select(columns)
    assert compiled.sort(columns).equals(written.sort(columns))


def test_files_of_an_installed_package(
    locale: Path, tmp_path: Path, ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "demo-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: demo\nVersion: 1.2\n")
    (info / "RECORD").write_text("locale/fr/LC_MESSAGES/app.mo,,\nlocale/fr/LC_MESSAGES/app.po,,\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    frame = read(ctx, packages=["demo"])
    assert frame.height == 4
    assert set(frame["source"]) == {"locale/fr/LC_MESSAGES/app.po"}


def test_a_language_that_is_not_there(locale: Path, ctx: Context) -> None:
    with pytest.raises(InputError, match="no translation into de") as error:
        read(ctx, locale, languages=["de"])
    assert error.value.remedy == "They are in: fr, ru."


def test_no_files_are_an_error(tmp_path: Path, ctx: Context) -> None:
    with pytest.raises(InputError, match=r"has no \.po or \.mo file"):
        read(ctx, tmp_path)
    with pytest.raises(InputError, match=r"no \.po or \.mo file is installed"):
        read(ctx, packages=["hypothesis"])


@pytest.mark.parametrize("configuration", [{}, {"path": "x", "packages": ["y"]}])
def test_a_path_or_packages(configuration: dict[str, Any]) -> None:
    stage = next(stage for stage in STAGES if stage.name == "source")
    component = read_component(sources.gettext, stage, distribution="luthier-text", version="0", plugin="text")
    with pytest.raises(ConfigurationError, match="either a `path` or `packages`"):
        component.configure(configuration)


@pytest.mark.parametrize(
    ("header", "forms"),
    [
        (FRENCH, (0, 1)),
        (RUSSIAN, (0, 2)),
        ("nplurals=1; plural=0;", (0, 0)),
        ("", None),
        ("nplurals=2; plural=n/0;", None),
        ("nplurals=2; plural=__import__('os');", None),
    ],
)
def test_plural_forms(header: str, forms: tuple[int, int] | None) -> None:
    assert plural_forms(header) == forms
