"""Luthier's text plugin: read documents, clean and deduplicate them, make training examples of them.

`sources`, `cleaners` and `formatters` hold the components' signatures; their bodies import the
modules that begin with an underscore, one for each idea.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from luthier import hookimpl
from luthier_text import cleaners, formatters, sources

if TYPE_CHECKING:
    from collections.abc import Iterable

    from luthier.hookspecs import ComponentFunction


@hookimpl
def luthier_sources() -> Iterable[ComponentFunction]:
    """Sources of documents."""
    return [
        sources.jsonl,
        sources.text_files,
        sources.docstrings,
        sources.debian_descriptions,
        sources.gettext,
        sources.manual_pages,
    ]


@hookimpl
def luthier_cleaners() -> Iterable[ComponentFunction]:
    """Cleaners and deduplication."""
    return [
        cleaners.unicode,
        cleaners.whitespace,
        cleaners.length,
        cleaners.normalise,
        cleaners.pii,
        cleaners.secrets,
        cleaners.exact_duplicates,
        cleaners.near_duplicates,
        cleaners.values,
        cleaners.mix,
    ]


@hookimpl
def luthier_formatters() -> Iterable[ComponentFunction]:
    """Formatters: documents to examples with a split."""
    return [
        formatters.summarization,
        formatters.language_modelling,
        formatters.translation,
        formatters.prompt_completion,
        formatters.chat,
        formatters.classification,
        formatters.preference,
        formatters.unpaired_preference,
    ]
