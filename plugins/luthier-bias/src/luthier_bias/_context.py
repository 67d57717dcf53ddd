"""The context rules: when a match of the lexicon is about the word, or means something else."""

from __future__ import annotations

from typing import Literal

from luthier_bias._fold import Token

Reason = Literal["mention", "technical", ""]

WINDOW = 4
QUOTES = "\"'`\u2018\u2019\u201a\u201c\u201d\u201e\u00ab\u00bb"

MENTION = frozenset(
    """
    word words term terms phrase phrases slur slurs epithet epithets insult insults swearword swearwords
    called spelled spelling means meaning meanings definition defined etymology
    profanity profanities obscenity vulgar vulgarity pejorative derogatory offensive taboo censor censored censors
    filter filters filtered filtering detect detects detecting detection detector classifier classify moderation
    moderate blocklist blacklist wordlist lexicon stopword stopwords anti against antidiscrimination
    """.split()  # noqa: SIM905 - a table of words reads better as text
)
"""Beside one of these, a term is spoken of and not used."""

TECHNICAL = {
    "abort": "transaction signal process request job build operation core error connection call exception task",
    "anal": "fissure canal cancer sphincter",
    "ass": "subtitle subtitles ssa format file codec emitter assembler",
    "bastard": "title sword file",
    "bang": "shebang operator path",
    "blow": "up memory stack cache limit",
    "chink": "armor armour",
    "cock": "valve stop tap",
    "coon": "maine cat",
    "crap": "dice table",
    "cum": "sum prod laude max min freq dist",
    "damn": "near vulnerable",
    "dummy": "variable variables value values input inputs data module object "
    "token argument class file function test batch",
    "dyke": "basalt flood swarm rock",
    "fag": "end",
    "hang": "process thread request server worker deadlock timeout call connection",
    "kill": "process processes signal signals job jobs task tasks thread threads worker workers container "
    "server daemon command pid session ring switch child subprocess connection",
    "master": "slave branch node server replica process key copy",
    "porn": "classifier",
    "retard": "flame fire potential time argument timing spark",
    "screw": "driver thread bolt head axis machine propeller",
    "sex": "column columns feature features field attribute variable age chromosome chromosomes ratio "
    "male female gender demographic smoker survived passenger category categorical patient "
    "education hormone biological species",
    "slave": "master device devices replica spi i2c bus node database address process mode",
    "strip": "whitespace characters led lights comic",
    "suck": "vacuum pump data air",
    "tit": "blue great coal bird birds",
}
"""For a stem, the words beside which it has another sense."""

_TECHNICAL = {stem: frozenset(words.split()) for stem, words in TECHNICAL.items()}


def reason_to_keep(text: str, words: list[Token], first: int, last: int) -> Reason:
    """Why the match of the words `first` to `last` (inclusive) does not count; empty if it does."""
    if _is_quoted(text, words[first].start, words[last].end):
        return "mention"
    beside = {word.folded for word in (*words[max(first - WINDOW, 0) : first], *words[last + 1 : last + 1 + WINDOW])}
    if beside & MENTION:
        return "mention"
    for word in words[first : last + 1]:
        if any(word.folded.startswith(stem) and beside & senses for stem, senses in _TECHNICAL.items()):
            return "technical"
    return ""


def _is_quoted(text: str, start: int, end: int) -> bool:
    return start > 0 and end < len(text) and text[start - 1] in QUOTES and text[end] in QUOTES
