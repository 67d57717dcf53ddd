"""Luthier's bias plugin: drop toxic documents by a lexicon with context rules, audit who is mentioned."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, MinLen

from luthier import Location, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from luthier import Context, Dataset, Frame
    from luthier.hookspecs import ComponentFunction

Severity = Literal["low", "medium", "high", "critical"]

SAFETYPE = Location(
    "wheel:safetype==1.14.0/safetype/data/en.json"
    "#sha256=e8d8ec4f1f3028d78296e0330e3fa8c73881b5dc9f8e9054dccbbacbacfb773d"
)
"""The English rules of safetype (MIT): 43 patterns, each with a category and a severity."""


def toxicity(
    frame: Frame,
    ctx: Context,
    *,
    lexicon: Location = SAFETYPE,
    columns: Annotated[list[str], MinLen(1)] = ["text"],  # noqa: B006
    min_severity: Severity = "medium",
    max_severity: Severity = "critical",
    categories: Annotated[list[str], MinLen(1)] | None = None,
    action: Literal["drop", "flag"] = "drop",
) -> Frame:
    """Drop documents with toxic language, by a lexicon of severities and categories, whole words in context.

    Text is compared without case, accents, zero-width characters, look-alike letters of other scripts and
    simple substitutions (`sh1t`, `@ss`), with letters drawn out (`fuuuck`) or set apart (`f u c k`). Only
    whole words match, so that Scunthorpe and `class` are safe. A match is kept (and reported as kept) where
    its context is one of these:

    - mention: the term stands in quotation marks, or beside a word such as `word`, `term`, `slur`,
      `called`, `filter`, `detect`, `profanity`: someone writes about the word;
    - technical: the term stands beside a word that gives it another sense (`kill` and `process`,
      `sex` and `column`, `dummy` and `variable`); the list is in `_context.py`.

    Words that only name a group of people never count, also if the lexicon has them: `gay`, `Muslim`,
    `Black` alone say nothing of toxicity, and lists that treat them so silence those groups (Dodge et al.
    2021, Documenting Large Webtext Corpora).

    The table `toxicity` has each match with `id`, `source`, `term`, `category`, `severity`, `decision`
    (`dropped`, `flagged`, `kept: mention`, `kept: technical`) and an excerpt; the metrics count documents
    and matches by category. A word list is no judge: it misses toxicity without bad words and does not
    understand irony; look at the table before you trust it.

    Args:
        lexicon: a `.json` of safetype's form (`rules` with `pattern`, `category`, `severity`), a `.json`
            list of objects with `term`, `category`, `severity`, or a `.csv` with these columns.
        columns: the columns that are searched.
        min_severity: matches below do not count.
        max_severity: matches above do not count.
        categories: the categories that count (safetype's: profanity, hate, harassment, sexual); all by
            default.
        action: `drop` the documents, or `flag` them: keep all, with the worst severity in a column
            `toxicity`, null for those without.

    Raises:
        InputError: if the lexicon cannot be fetched or read, or has none of the categories.
    """
    from luthier_bias._toxicity import Settings, filter_frame

    settings = Settings(tuple(columns), min_severity, max_severity, tuple(categories or ()), action)
    return filter_frame(frame, ctx, ctx.open(lexicon), settings)


def representation(
    data: Dataset,
    ctx: Context,
    *,
    column: str = "text",
    by: str = "source",
    top: Annotated[int, Ge(0)] = 10,
) -> Iterator[Frame]:
    """Count which groups of people the data mentions, how often and where; the data passes unchanged.

    Groups stand along axes (gender, age, religion, region, ethnicity, orientation, disability), each with
    a short list of English terms that name its people, in the manner of HolisticBias (Smith et al. 2022)
    but much smaller; the lists are in `_groups.py`. Colours count as people only in phrases (`Black
    women`), and pronouns are an entry of their own. A count says who is spoken of, not how.

    Put it before and after a filter, with an `id` each, to see what the filter did to whom; the report
    shows both. The table `representation` has for each axis and group, overall and for each of the top
    sources: documents and mentions, mentions per million words, and the share of the documents. The figure
    of the same name draws the overall rates.

    Args:
        column: the text that is searched.
        by: the column whose values are the sources (`package` for docstrings).
        top: so many of the sources with the most documents get rows of their own.

    Raises:
        InputError: if a column is not there.
    """
    from luthier_bias._representation import audit

    return audit(data, ctx, column, by, top)


@hookimpl
def luthier_bias_filters() -> Iterable[ComponentFunction]:
    """Bias filters and audits."""
    return [toxicity, representation]
