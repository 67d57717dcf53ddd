"""Credentials in text: by the forms that their issuers gave them, by the words before them, and by their randomness.

The forms are those that the issuers document and that secret scanners look for. What is no more than a name for a
secret (`password=PASSWORD`, `user:pass@host`, `your_token`) is left alone: documentation is full of such.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise

from luthier_text._masking import Match, Rule

PRIVATE_KEY = re.compile(
    r"-----BEGIN (?P<form>(?:[A-Z0-9]{1,20} ){0,3}PRIVATE KEY(?: BLOCK)?)-----"
    r"(?:.{0,20000}?-----END (?P=form)-----|(?:\s{1,4}[A-Za-z0-9+/=]{16,100})*)",
    re.DOTALL,
)
"""Also one whose end was cut off."""
API_KEYS = (
    r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}",  # Amazon Web Services
    r"gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}",
    r"gl(?:pat|dt|rt|ptt|soat)-[A-Za-z0-9_-]{20,64}",  # GitLab
    r"xox[abeoprs]-[A-Za-z0-9-]{10,250}|xapp-\d-[A-Za-z0-9-]{20,250}",  # Slack
    r"https://hooks\.slack\.com/services/T[A-Z0-9]{6,12}/B[A-Z0-9]{6,12}/[A-Za-z0-9]{20,32}",
    r"AIza[A-Za-z0-9_-]{35}|GOCSPX-[A-Za-z0-9_-]{28}|ya29\.[A-Za-z0-9_-]{20,2048}",  # Google
    r"sk-(?:proj|svcacct|admin|ant|or)-[A-Za-z0-9_-]{20,250}",  # OpenAI, Anthropic, OpenRouter
    r"sk-[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20}",  # OpenAI's older ones
    r"hf_[A-Za-z]{30,40}",  # Hugging Face
    r"[srp]k_(?:live|test)_[A-Za-z0-9]{16,250}|whsec_[A-Za-z0-9+/=]{32,64}",  # Stripe
    r"npm_[A-Za-z0-9]{36}|pypi-AgE[A-Za-z0-9_-]{50,500}|dckr_pat_[A-Za-z0-9_-]{27}",
    r"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}",  # SendGrid
    r"do[opr]_v1_[a-f0-9]{64}|shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}",  # DigitalOcean, Shopify
    r"\d{8,10}:AA[A-Za-z0-9_-]{33}",  # Telegram
)
API_KEY = re.compile(rf"(?<![A-Za-z0-9_-])(?:{'|'.join(API_KEYS)})(?![A-Za-z0-9_-])")
JWT = re.compile(r"(?<![\w.-])(eyJ[\w-]{8,2048})\.eyJ[\w-]{8,16384}\.[\w-]{16,2048}(?![\w-])", re.ASCII)
IN_URL = re.compile(
    r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/@:\"'<>]{0,64}:(?P<value>[^\s/@\"'<>]{3,256})@(?=[\w\[])", re.IGNORECASE
)
NAMES = (
    r"pass(?:word|wd|phrase)|pwd|secret(?:[_-]?access)?(?:[_-]?key)?|api[_-]?(?:key|token|secret)|access[_-]?(?:key|token)"
    r"|auth[_-]?token|client[_-]?secret|private[_-]?key|encryption[_-]?key|credentials?|token"
)
ASSIGNED = re.compile(
    rf"(?i:\b(?:[a-z][a-z0-9]{{0,30}}[_.-]){{0,6}}(?P<name>{NAMES}))[\"']?[ \t]{{0,3}}(?::=|[:=])[ \t]{{0,3}}"
    r"(?:\"(?P<double>[^\"\s]{4,256})\"|'(?P<single>[^'\s]{4,256})'|(?P<bare>[^\s\"'`,;()\[\]{}<>]{4,256})(?![(\[{<\"'`]))"
)
BEARER = re.compile(r"(?i:\bbearer|\bauthorization: ?basic)[ \t]+(?P<value>[\w.~+/-]{16,4096}=*)", re.ASCII)
TOKEN = re.compile(r"(?<![\w+/.:%@-])[A-Za-z0-9+/][A-Za-z0-9+/_-]{19,511}={0,2}(?![\w+/=]|\.\w)", re.ASCII)
PLACEHOLDER = re.compile(
    r"[<$%{\[*:/~&]|[A-Z][A-Z0-9_-]*\W{0,2}$|(?i:https?:"
    r"|(?:your|my|some|the|an?|example|sample|dummy|fake|test)(?:[_-]|(?=pass|secret|token|key))"
    r"|(?:pass(?:word|wd|phrase)?|pwd?|secret|tokens?|(?:api|access|private|secret)[_-]?key|key|none|null|true|false"
    r"|str(?:ing)?|change_?me|redacted|hidden|required|optional)\W{0,2}$|.*(?:\.\.\.|…|\*\*|xxx|<|\$\{))"
)
"""What stands for a secret: an expression, a variable, a word in capitals, a name."""
DIGEST = re.compile(r"(?:sha\d+|md5)[-:]|AAAA")
"""How digests of packages and public SSH keys begin: random, and no secret."""
LEAST_CHANGES = 0.4


def rules(kinds: Sequence[str], min_entropy: float) -> list[Rule]:
    """The rules of the kinds; see `cleaners.secrets`. The surest claim text first."""
    names = rf"(?i)(?:{NAMES})[\"']?[ \t]{{0,3}}:?[:=]"
    issuers = re.sub(r"\{(\d+),\d+\}", r"{\1,}", "|".join(API_KEYS))  # Without large counts, which are slow.
    every = [
        Rule("private-key", "-----BEGIN [A-Z0-9 ]*PRIVATE KEY", private_keys),
        Rule("jwt", r"eyJ[A-Za-z0-9_-]{8}", jwts),
        Rule("api-key", issuers, api_keys),
        Rule("password", r"://[^\s/@]{0,64}:[^\s/@]{3,256}@", in_urls),
        Rule("password", names, assigned),
        Rule("token", r"(?i)bearer[ \t]|basic[ \t]", bearers),
        Rule("token", r"[A-Za-z0-9+/_-]{20}", partial(random_tokens, min_entropy=min_entropy)),
    ]
    return [rule for rule in every if rule.kind in kinds]


def private_keys(text: str) -> Iterator[Match]:
    """PEM and OpenPGP blocks."""
    for found in PRIVATE_KEY.finditer(text):
        yield Match(found.start(), found.end(), found.group())


def api_keys(text: str) -> Iterator[Match]:
    """Keys in the forms of those who issue them."""
    for found in API_KEY.finditer(text):
        yield Match(found.start(), found.end(), found.group())


def jwts(text: str) -> Iterator[Match]:
    """JSON Web Tokens (RFC 7519), signed: their headers are read."""
    for found in JWT.finditer(text):
        try:
            header = json.loads(base64.urlsafe_b64decode(found[1] + "=" * (-len(found[1]) % 4)))
        except (binascii.Error, ValueError):
            continue
        if isinstance(header, dict) and "alg" in header:
            yield Match(found.start(), found.end(), found.group())


def in_urls(text: str) -> Iterator[Match]:
    """Passwords of URLs; the user and the host stay."""
    for found in IN_URL.finditer(text):
        if not PLACEHOLDER.match(found["value"]):
            yield Match(*found.span("value"), found["value"])


def assigned(text: str) -> Iterator[Match]:
    """What is assigned to a name such as `password`, in code, in settings and in prose."""
    for found in ASSIGNED.finditer(text):
        kind = found.lastgroup or ""
        value = found[kind].rstrip(".,;:!?\\") if kind == "bare" else found[kind]
        if PLACEHOLDER.match(value) or len(value) < 4:
            continue
        # Without quotes it may be a word, a type, an expression; a token may be one of a language.
        vague = kind == "bare" or found["name"].lower() in ("token", "credential", "credentials")
        if not vague or _is_mixed(value):
            yield Match(found.start(kind), found.start(kind) + len(value), value)


def _is_mixed(value: str) -> bool:
    """Whether it has letters and numbers, or signs that names have not, and is no path and no expression."""
    odd = re.search(r"\d|[!#$%^&*?+~]", value) is not None and re.search(r"[A-Za-z]", value) is not None
    dotted = re.fullmatch(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+", value) is not None
    return odd and not dotted and not ("/" in value and _changes(value) < LEAST_CHANGES)


def bearers(text: str) -> Iterator[Match]:
    """Tokens of HTTP's header `Authorization` (RFC 6750, RFC 7617)."""
    for found in BEARER.finditer(text):
        if re.search(r"\d", found["value"]) and not PLACEHOLDER.match(found["value"]):
            yield Match(*found.span("value"), found["value"])


def random_tokens(text: str, *, min_entropy: float) -> Iterator[Match]:
    """What looks random: upper and lower case and digits, in turn, with much entropy; no digests in hexadecimal."""
    for found in TOKEN.finditer(text):
        value = found.group()
        mixed = all(re.search(kind, value) for kind in ("[a-z]", "[A-Z]", r"\d")) and not DIGEST.match(value)
        if mixed and _changes(value) >= LEAST_CHANGES and entropy(value) >= min_entropy:
            yield Match(found.start(), found.end(), value)


def entropy(text: str) -> float:
    """Shannon's entropy of the characters of a text that is not empty, in bits a character."""
    counts = Counter(text).values()
    return -math.fsum(count / len(text) * math.log2(count / len(text)) for count in counts)


def _changes(text: str) -> float:
    """How often neighbours among letters and digits are of two kinds: about 0.6 in random text, less in names."""
    kinds = ["U" if each.isupper() else "l" if each.islower() else "d" for each in text if each.isalnum()]
    return sum(one != two for one, two in pairwise(kinds)) / max(len(kinds) - 1, 1)
