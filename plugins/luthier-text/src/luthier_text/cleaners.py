"""The cleaners: documents in, documents out. Signatures only; the work is in the modules they import."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Interval, MinLen

from luthier import InputError, component
from luthier.suggest import did_you_mean

if TYPE_CHECKING:
    from luthier import Context, Dataset, Frame

Columns = Annotated[list[str], MinLen(1)]
Words = Literal["keep", "stem", "lemmatize"]
Pii = Literal["email", "phone", "card", "iban", "ip"]
Secret = Literal["private-key", "api-key", "jwt", "password", "token"]
BRACKETS = {"<": ">", "[": "]", "(": ")", "{": "}"}
FORMS = {"documents", "language-modelling", "prompt-completion", "chat", "preference", "classification"}


def _check_columns(*, columns: list[str], **_: object) -> None:
    twice = [column for column in columns if columns.count(column) > 1]
    if twice:
        raise InputError(f"columns: {twice[0]!r} is named twice", "Name each column once.")


def _check_bounds(
    *, min_characters: int, max_characters: int | None, min_words: int, max_words: int | None, **_: object
) -> None:
    for unit, least, greatest in (
        ("characters", min_characters, max_characters),
        ("words", min_words, max_words),
    ):
        if greatest is not None and least > greatest:
            raise InputError(
                f"min_{unit}: {least} is more than max_{unit}: {greatest}, so no document would be left",
                f"Raise max_{unit}, or lower min_{unit}.",
            )


def _check_normalise(*, columns: list[str], language: str, words: Words, **_: object) -> None:
    _check_columns(columns=columns)
    if words != "keep":
        from luthier_text._languages import check_language

        check_language(language, words)


def _check_mask(*, columns: list[str] | None, replacement: str, **_: object) -> None:
    from luthier_text._template import Template

    if columns is not None:
        _check_columns(columns=columns)
    template = Template.parse(replacement, "replacement")
    unknown = [name for name in template.columns if name not in ("kind", "number")]
    if unknown:
        raise InputError(
            f"replacement: there is no {{{unknown[0]}}}", "Write {kind} and {number}: <{kind}>, [{kind} {number}]."
        )
    written = "".join(template.literals)
    inside = set(written[1:-1])
    if BRACKETS.get(written[:1]) != written[-1:] or inside & {*BRACKETS, *BRACKETS.values()}:
        raise InputError(
            f"replacement: {replacement!r} is not set off by brackets, so that a mask could not be told from text",
            "Write <{kind}>, [{kind}], (removed) or {{{kind}}}.",
        )


def _check_pii(*, columns: list[str] | None, replacement: str, regions: list[str], **_: object) -> None:
    from phonenumbers import SUPPORTED_REGIONS

    _check_mask(columns=columns, replacement=replacement)
    unknown = [region for region in regions if region not in SUPPORTED_REGIONS]
    if unknown:
        suggestion = did_you_mean(unknown[0].upper(), SUPPORTED_REGIONS)
        raise InputError(
            f"regions: there is no region {unknown[0]!r}" + (f"; {suggestion}" if suggestion else ""),
            "Name them by their codes of ISO 3166, in capitals: US, GB, DE.",
        )


@component(check=_check_columns)
def unicode(frame: Frame, *, columns: Columns = ["text"], unescape_html: bool = False) -> Frame:  # noqa: B006
    r"""Repair mojibake, control characters and odd line ends with ftfy; clean documents skip it.

    The result equals `ftfy.fix_text` with line breaks made `\n`, control characters and terminal escapes
    removed, NFC, and everything that is a choice of style left alone: quotes stay curly, ligatures and
    wide characters stay. A regular expression in Rust, made from ftfy's own (`ftfy.badness`), tells the
    documents that ftfy could change; the others, nearly all, never reach Python.

    Args:
        columns: the columns to repair.
        unescape_html: turn entities such as `&amp;` into characters, in documents without a `<`. Off,
            because documentation means what it writes.

    Raises:
        InputError: if a column is not there, is not text or is named twice.
    """
    from luthier_text._unicode import repair

    return repair(frame, columns, unescape_html=unescape_html)


@component(check=_check_columns)
def whitespace(frame: Frame, *, columns: Columns = ["text"], keep_indentation: bool = True) -> Frame:  # noqa: B006
    """Strip documents, make runs of blanks one space, and runs of blank lines one blank line.

    Args:
        columns: the columns to tidy.
        keep_indentation: leave blanks at the start of a line, which code and lists need.

    Raises:
        InputError: if a column is not there, is not text or is named twice.
    """
    from luthier_text._whitespace import tidy

    return tidy(frame, columns, keep_indentation=keep_indentation)


@component(check=_check_bounds)
def length(
    frame: Frame,
    *,
    column: str = "text",
    min_characters: Annotated[int, Ge(0)] = 1,
    max_characters: Annotated[int, Ge(1)] | None = None,
    min_words: Annotated[int, Ge(0)] = 0,
    max_words: Annotated[int, Ge(1)] | None = None,
) -> Frame:
    """Drop documents that are too short or too long, in characters or words.

    Args:
        column: the column that is measured.
        min_characters: the least number of characters (Unicode code points).
        max_characters: the greatest; none by default.
        min_words: the least number of words (runs without blanks).
        max_words: the greatest; none by default.

    Raises:
        InputError: if the column is not there or is not text, or a least number is more than its greatest.
    """
    from luthier_text._length import within

    return within(frame, column, (min_characters, max_characters), (min_words, max_words))


def values(frame: Frame, *, column: str, values: Annotated[list[str], MinLen(1)]) -> Frame:
    """Keep the documents whose column has one of some values: a language, a section, a kind.

    Args:
        column: the column that is looked at.
        values: what it may be; numbers are compared as they are written.

    Raises:
        InputError: if the column is not there, or holds lists.
    """
    from luthier_text._values import having

    return having(frame, column, values)


@component(check=_check_normalise)
def normalise(
    frame: Frame,
    *,
    columns: Columns = ["text"],  # noqa: B006
    language: str = "en",
    lowercase: bool = False,
    stop_words: Literal["keep", "english"] | list[str] = "keep",
    words: Words = "keep",
) -> Frame:
    """Lowercase, remove stop words, stem or lemmatize: for classic pipelines, not for language models.

    Each piece is off until asked for. Stemming is Snowball's (Porter 2 for English), lemmatization
    simplemma's dictionary. What stands between words is kept, except beside a removed stop word.

    Args:
        columns: the columns to normalise.
        language: the ISO 639-1 code that stemming and lemmatization work for.
        lowercase: make everything lower case.
        stop_words: `english` removes a list of English function words; or give a list of your own.
        words: `stem` or `lemmatize` each word.

    Raises:
        InputError: if a column is not there, is not text or is named twice, or the language has no stemmer
            or no lemmas; the message lists those that have.
    """
    from luthier_text._normalise import normalise_frame

    return normalise_frame(frame, columns, language, lowercase=lowercase, stop_words=stop_words, words=words)


@component(check=_check_pii, redacts=True)
def pii(
    frame: Frame,
    ctx: Context,
    *,
    columns: Columns | None = None,
    kinds: Annotated[list[Pii], MinLen(1)] = ["email", "phone", "card", "iban", "ip"],  # noqa: B006
    replacement: str = "<{kind}>",
    regions: list[str] = ["US"],  # noqa: B006
    public_addresses_only: bool = True,
) -> Frame:
    """Mask what identifies people: email addresses, telephone numbers, payment cards, IBANs, IP addresses.

    Numbers are validated, not only matched, and precision comes first, because a mask in the place of a version or
    a measurement teaches a model nonsense:

    - `email`: an address whose domain has two labels or more, in any script; not `name (at) host`.
    - `phone`: by libphonenumber (the package phonenumbers), a number with its country's code (`+44 20 …`), or one
      of the `regions` that stands by itself in two groups or more (`020 8366 1177`, not `02083661177`), is no date
      and does not follow ISBN, DOI and the like.
    - `card`: 14 to 19 digits, together or in the groups of cards, that an issuer's numbers begin with, and whose
      check digit is right (Luhn, ISO/IEC 7812).
    - `iban`: of a country's length and form, whose check digits are right (ISO 13616), by python-stdnum.
    - `ip`: IPv4 and IPv6, read by `ipaddress`. Of four numbers that could be an address, those that are all below 20
      (`1.2.3.4`, but not `10.0.0.1`) or follow words such as `version` and `section` are no address.

    Texts are searched in polars first, so that only rows with a suspect reach the rules. What is masked already is
    known by its brackets and left alone: masking twice is masking once. Names, postal addresses, dates of birth and
    national identity numbers are not looked for.

    Metrics: `documents_masked`, and `matches_KIND` for each kind. The table `pii` has `id`, `column`, `kind` and an
    excerpt of the masked text, so that you can see what was masked wrongly; neither it nor the samples of this step
    have a value that was masked. Put this step right behind the source, so that no step before it shows any.

    Args:
        columns: the columns to mask; by default all that have text, conversations and lists of text too, except
            `id`, `group`, `source` and `split`.
        kinds: what is masked.
        replacement: what stands for it, in brackets: `{kind}` is EMAIL, PHONE and so on, `{number}` tells the values
            of a kind in one row apart, in all its columns: `<{kind}_{number}>`.
        regions: the countries (ISO 3166: US, DE) whose numbers are also found without the country's code; an empty
            list for none.
        public_addresses_only: leave private, local, multicast, reserved and documentation addresses alone, which
            lead to nobody.

    Raises:
        InputError: if a column is not there, has no text or is named twice, the replacement cannot be read or is
            not in brackets, or there is no such region.
    """
    from luthier_text._masked import Settings, masked_pii

    return masked_pii(frame, ctx, Settings(columns, kinds, replacement), regions, public_only=public_addresses_only)


@component(check=_check_mask, redacts=True)
def secrets(
    frame: Frame,
    ctx: Context,
    *,
    columns: Columns | None = None,
    kinds: Annotated[list[Secret], MinLen(1)] = ["private-key", "api-key", "jwt", "password", "token"],  # noqa: B006
    action: Literal["mask", "drop"] = "mask",
    replacement: str = "<{kind}>",
    min_entropy: Annotated[float, Interval(ge=0, le=6)] = 4.0,
) -> Frame:
    """Mask credentials, or drop the rows that have some: keys, tokens, passwords.

    - `private-key`: PEM and OpenPGP blocks, also without their end.
    - `api-key`: in the forms that Amazon Web Services, GitHub, GitLab, Slack, Google, OpenAI, Anthropic, Hugging
      Face, Stripe, npm, PyPI, Docker, SendGrid, DigitalOcean, Shopify and Telegram gave their keys.
    - `jwt`: signed JSON Web Tokens, whose header is read.
    - `password`: of URLs (`https://user:…@host`), and what is assigned to `password`, `secret`, `api_key`, `token`
      and the like. Expressions, words in capitals, variables and names (`password=PASSWORD`, `your-token`) are none;
      without quotes a value needs a digit or a sign, so that prose stays.
    - `token`: of `Authorization` headers, and the rest that looks random: 20 characters or more of upper case, lower
      case and digits that take turns, with `min_entropy`. Digests in hexadecimal and UUIDs are none.

    Texts are searched in polars first, and masking twice is masking once, as with `pii`. Metrics:
    `documents_masked` or `documents_dropped`, and `matches_KIND` for each kind. The table `secrets` has `id`,
    `column`, `kind` and an excerpt of the masked text; neither it nor the samples of this step have a secret.

    Args:
        columns: the columns that are searched; by default all that have text, conversations and lists of text too,
            except `id`, `group`, `source` and `split`.
        kinds: what is looked for.
        action: `mask` the secrets, or `drop` the rows.
        replacement: what stands for a secret, in brackets: `{kind}` is API_KEY, PASSWORD and so on, `{number}` tells
            the values of a kind in one row apart.
        min_entropy: of what looks random, in bits a character (Shannon). Lower finds more and is wrong more often.

    Raises:
        InputError: if a column is not there, has no text or is named twice, or the replacement cannot be read or is
            not in brackets.
    """
    from luthier_text._masked import Settings, without_secrets

    return without_secrets(frame, ctx, Settings(columns, kinds, replacement), min_entropy, drop=action == "drop")


@component(check=_check_columns)
def exact_duplicates(
    data: Dataset,
    *,
    columns: Columns = ["text"],  # noqa: B006
    ignore_case: bool = True,
    ignore_whitespace: bool = True,
) -> Iterator[Frame]:
    """Keep the first of the documents whose columns are equal.

    Which is first is the order of the rows, whatever the shards. Memory: about 100 bytes a document, for
    a set of 128-bit hashes; the texts are read shard by shard.

    Args:
        columns: what must be equal, all of them.
        ignore_case: documents that differ in case only are equal.
        ignore_whitespace: documents that differ in blanks only are equal.

    Raises:
        InputError: if a column is not there or is named twice, or is not text and case or blanks are ignored.
    """
    from luthier_text._exact import unique

    return unique(data, columns, ignore_case=ignore_case, ignore_whitespace=ignore_whitespace)


def near_duplicates(
    data: Dataset,
    *,
    column: str = "text",
    threshold: Annotated[float, Interval(gt=0, le=1)] = 0.8,
    permutations: Annotated[int, Interval(ge=16, le=1024)] = 128,
    ngram: Annotated[int, Interval(ge=1, le=32)] = 3,
    keep: Literal["one", "all"] = "one",
) -> Iterator[Frame]:
    """Keep one document of each cluster whose estimated Jaccard similarity reaches `threshold`.

    MinHash (Broder 1997) over shingles of `ngram` words, computed by rensa in Rust, finds candidates by
    locality-sensitive hashing (Indyk and Motwani 1998); bands are laid so that a pair exactly at the
    threshold is a candidate with a chance of 0.99 or more. Each candidate pair is then verified by the
    share of equal signature entries, whose standard error is at most 0.5 / sqrt(permutations). A cluster
    is a connected component of the verified pairs.

    `group` of every row becomes that of its connected component over both relations, same group before
    and same cluster: the least of the groups' names. So a split by `group` keeps near-duplicates and
    siblings together, also with `keep: all`, which drops nothing.

    The result does not depend on the order of rows, on shards or on the process: hashes are fixed, and
    the row that stays is the one of the least id. Memory: 4 * permutations + 200 bytes a document
    (0.7 GB for a million at 128); the texts are read shard by shard.

    Args:
        column: the column that is compared, in lower case, words only.
        threshold: the least similarity of near-duplicates; 1 means the same set of shingles.
        permutations: entries of a signature; more are more exact and slower.
        ngram: words in a shingle.
        keep: `one` of each cluster (the least id), or `all`, only to write the groups.

    Raises:
        InputError: if the column is not there or is not text.
    """
    from luthier_text._minhash import MinHash
    from luthier_text._near import deduplicate

    return deduplicate(data, column, MinHash(permutations, ngram), threshold, keep_all=keep == "all")


@component(needs={"data": FORMS, "other": FORMS})
def mix(
    data: Dataset, other: Dataset, ctx: Context, *, share: Annotated[float, Interval(ge=0, lt=1)] = 0.1
) -> Iterator[Frame]:
    """Add rows of a second dataset, so that they make up a share of the text: replay, or a mixture of tasks.

    `other: STEP` names the second; both are documents, or examples of one form. All rows of the first stay;
    those of the second are drawn by their ids, by themselves in each split, until they have the share of
    the characters. Rows that the first has already are left out, as are those of a group that the first has in
    another split. Metric: `share`, which is less than asked for where the other has too little text, and the
    log warns of it.

    Continued pretraining on a domain loses less of what a model could do before if some of what it learns
    from is general text (Ibrahim et al., Simple and Scalable Strategies to Continually Pre-train Large
    Language Models, TMLR 2024: 5% or so).

    Args:
        share: of the second dataset in the text of the result; 0 gives the first alone.

    Raises:
        InputError: if there is nothing to add.
    """
    from luthier_text._mix import mixed

    return mixed(data, other, ctx, share)
