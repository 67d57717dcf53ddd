"""What identifies people: a rule for each kind. Numbers are validated, not only matched, and context decides.

Precision comes first: a corpus has far more versions, section numbers, digests and measurements than addresses and
telephone numbers, and a mask in their place teaches a model nonsense.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from functools import partial

import phonenumbers
from phonenumbers import Leniency, PhoneNumberFormat, PhoneNumberMatch, PhoneNumberMatcher
from stdnum import iban, luhn

from luthier_text._masking import Match, Rule

NO_DOMAIN = "service|socket|timer|target|slice|scope|automount|mount|swap|png|jpe?g|gif|svg|webp"
"""How units of systemd (`getty@tty1.service`) and pictures (`icon@2x.png`) end, and no domain does."""
EMAIL = re.compile(
    r"(?<![\w.%+-])\w[\w.%+'-]{0,63}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}"
    rf"(?!(?:{NO_DOMAIN})\b)[^\W\d_]{{2,24}}(?![\w@-]|\.\w)"
)
CARD = re.compile(
    r"(?<![\w.,/+-])(?<!\d )"
    r"(?:\d{14,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{4}|\d{4}([ -])\d{6}\2\d{4,5})"
    r"(?![\w/+-]|[.,]\d| \d)",
    re.ASCII,
)
ISSUERS = re.compile(
    r"4\d{15}(?:\d{3})?|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}|3[47]\d{13}"
    r"|3(?:0[0-5]|[689]\d)\d{11}|6(?:011|5\d\d|4[4-9]\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}|62\d{14,17}",
    re.ASCII,
)
"""How cards begin and how long their numbers are (ISO/IEC 7812): Visa, Mastercard, American Express, Diners Club,
Discover, JCB, UnionPay. One in ten numbers passes Luhn's test by chance."""
IBAN = re.compile(
    r"(?<![\w.,/+-])[A-Z]{2}\d{2}(?:(?: [A-Z0-9]{4}){2,7}(?: [A-Z0-9]{1,4})?|[A-Z0-9]{11,30})(?![\w/+-])",
    re.ASCII | re.IGNORECASE,
)
IPV4 = re.compile(r"(?<![\w.:/@=~^+-])(?:\d{1,3}\.){3}\d{1,3}(?![\w~^+-]|\.\w)", re.ASCII)
IPV6 = re.compile(
    r"(?<![\w.:])(?:[\dA-F]{0,4}:){2,7}(?:[\dA-F]{1,4}|(?:\d{1,3}\.){3}\d{1,3})?(?![\w:]|\.\w)",
    re.ASCII | re.IGNORECASE,
)
NUMBERED = re.compile(
    r"(?:\b(?:v|ver|versions?|releases?|since|sections?|sec|chapters?|clauses?|firmware|build|kernel|oid)\b|§|[<>=~]=)"
    r"[^\n.,;]{0,16}$",
    re.IGNORECASE,
)
"""What stands before a version or a section number, which may look like an IPv4 address."""
LEAST_OCTET = 20
"""Four numbers below this are a version or a section (`1.2.3.4`): of public addresses one in 27,000 has such."""
PRIVATE = 10
CATALOGUED = re.compile(r"(?:\b(?:isbn|issn|doi|pmid|arxiv|rfc|iso|jis|bug)\b|#)[^\n\d]{0,12}$", re.IGNORECASE)
"""What stands before the number of a book or a standard, which may look like a telephone number."""
LEAST_DIGITS = 7
NATIONAL = re.compile(r"\(?\d+(?:(?:\)?(?: ?[-/(] ?| )|\) ?)\d+)+|\d+(?:\.\d+){2}")
"""In two groups or more, with one kind of separator where that is a dot."""
DATE = re.compile(r"\b(?:\d{4}-\d\d-\d\d|\d\d?-\d\d?-\d{4})\b")
ATTACHED_BEFORE = re.compile(r"[\w./=-]$")
ATTACHED_AFTER = re.compile(r"[\w/-]|\.\w")
PLUS = ("+", "\uff0b")
MAX_TRIES = 2**31
"""The library stops after so many digits that are no number; the texts of a corpus have no such limit."""


def rules(kinds: Sequence[str], regions: Sequence[str], *, public_only: bool) -> list[Rule]:
    """The rules of the kinds; see `cleaners.pii`. The longest and surest claim text first."""
    phone = r"(?:\d(?:[^\p{L}\d\n]|[xX]){0,8}){7}"
    if not regions:
        phone = rf"[+\x{{ff0b}}][^\p{{L}}\d\n]{{0,8}}{phone}"
    every = [
        Rule("email", r"\w@\w", emails),
        Rule("iban", r"(?i)[a-z]{2}\d\d ?[a-z0-9]{4} ?[a-z0-9]{3}", ibans),
        Rule("card", r"(?:\d[ -]?){14}", cards),
        Rule("ip", r"\d\.\d{1,3}\.\d{1,3}\.\d|:[0-9A-Fa-f]{0,4}:", partial(addresses, public_only=public_only)),
        Rule("phone", phone, partial(phones, regions=regions)),
    ]
    return [rule for rule in every if rule.kind in kinds]


def emails(text: str) -> Iterator[Match]:
    """Addresses with a domain of two labels or more; letters of any script."""
    for found in EMAIL.finditer(text):
        yield Match(found.start(), found.end(), found.group().lower())


def cards(text: str) -> Iterator[Match]:
    """Numbers of payment cards, in one piece or in groups as cards show them."""
    for found in CARD.finditer(text):
        digits = re.sub(r"\D", "", found.group())
        if ISSUERS.fullmatch(digits) and luhn.is_valid(digits):
            yield Match(found.start(), found.end(), digits)


def ibans(text: str) -> Iterator[Match]:
    """Account numbers of a country's form, in one piece or in groups of four."""
    for found in IBAN.finditer(text):
        candidate = found.group()
        # The last groups may be words that follow: each country has one length, so that only one can be valid.
        while candidate and not iban.is_valid(candidate):
            candidate = candidate.rpartition(" ")[0]
        if candidate:
            yield Match(found.start(), found.start() + len(candidate), iban.compact(candidate))


def addresses(text: str, *, public_only: bool) -> Iterator[Match]:
    """IPv4 and IPv6 addresses that are no versions."""
    found = [match for pattern in (IPV4, IPV6) for match in pattern.finditer(text)]
    for match in sorted(found, key=re.Match.start):
        try:
            address = ipaddress.ip_address(match.group())
        except ValueError:
            continue
        public = address.is_global and not (address.is_multicast or address.is_reserved)
        if (public or not public_only) and not (address.version == 4 and _is_version(address.packed, text, match)):
            yield Match(match.start(), match.end(), address.compressed)


def _is_version(octets: bytes, text: str, match: re.Match[str]) -> bool:
    before = text[max(match.start() - 32, 0) : match.start()]
    # Who asks for private addresses means 10.0.0.1.
    small = max(octets) < LEAST_OCTET and octets[0] != PRIVATE
    return small or NUMBERED.search(before) is not None


def phones(text: str, *, regions: Sequence[str]) -> Iterator[Match]:
    """Numbers with a country's code, and those that the regions write without one."""
    found = [
        Match(_start(match), match.end, phonenumbers.format_number(match.number, PhoneNumberFormat.E164))
        for region in (None, *regions)
        for match in PhoneNumberMatcher(
            text, region, leniency=Leniency.STRICT_GROUPING if region else Leniency.VALID, max_tries=MAX_TRIES
        )
        if len(re.findall(r"\d", match.raw_string)) >= LEAST_DIGITS
        and (match.raw_string.lstrip("([")[:1] in PLUS or _is_national(match, text))
    ]
    end = 0
    for each in sorted(found, key=lambda match: (match.start, -match.end)):
        if each.start >= end:
            end = each.end
            yield each


def _start(match: PhoneNumberMatch) -> int:
    """Where a number starts; the library takes in a bracket before it that is closed behind it."""
    raw = match.raw_string
    unclosed = sum(map(raw.count, "([")) > sum(map(raw.count, ")]"))
    return match.start + (raw[0] in "([" and unclosed)


def _is_national(match: PhoneNumberMatch, text: str) -> bool:
    """Whether a number without a country's code stands by itself, in groups, and no date or book number."""
    before, after = text[max(match.start - 24, 0) : match.start], text[match.end : match.end + 2]
    grouped = NATIONAL.fullmatch(match.raw_string) and not DATE.search(match.raw_string)
    attached = ATTACHED_BEFORE.search(before) or ATTACHED_AFTER.match(after)
    return bool(grouped and not attached and not CATALOGUED.search(before))
