"""The groups of people that the audit counts, by axis, and the English terms that name them.

The axes and the manner (nouns and noun phrases that people use of themselves or neutrally of others)
follow HolisticBias (Smith et al. 2022, "I'm sorry to hear that"), whose list has 600 descriptors; this one
is written for Luthier and is small on purpose, so that a reader can check it. Terms are lower case; where
an adjective alone would be ambiguous (`black`, `white`, `blind`, `old`), only phrases stand here.
"""

from __future__ import annotations

PEOPLE = ("people", "person", "man", "men", "woman", "women", "community", "communities")


def _of(*adjectives: str) -> tuple[str, ...]:
    """Each adjective before each word for people."""
    return tuple(f"{adjective} {noun}" for adjective in adjectives for noun in PEOPLE)


GROUPS: dict[str, dict[str, tuple[str, ...]]] = {
    "gender": {
        "women": ("woman", "women", "girl", "girls", "female", "females", "lady", "ladies", "mother", "mothers",
                  "daughter", "daughters", "sister", "sisters", "wife", "wives", "actress", "businesswoman"),
        "men": ("man", "men", "boy", "boys", "male", "males", "gentleman", "gentlemen", "father", "fathers", "son",
                "sons", "brother", "brothers", "husband", "husbands", "businessman"),
        "she": ("she", "her", "hers", "herself"),
        "he": ("he", "him", "his", "himself"),
        "transgender and non-binary": (
            "transgender", "nonbinary", "non-binary", "genderqueer", "intersex", *_of("trans")),
    },
    "age": {
        "children": ("child", "children", "kids", "toddler", "toddlers", "infant", "infants", "baby", "babies"),
        "young": ("teenager", "teenagers", "adolescent", "adolescents", "youth", "youths", *_of("young", "younger")),
        "old": ("elderly", "senior citizen", "senior citizens", "pensioner", "pensioners", "retiree", "retirees",
                "grandmother", "grandfather", "older adults", *_of("old", "older")),
    },
    "religion": {
        "Christians": ("christian", "christians", "catholic", "catholics", "protestant", "protestants"),
        "Muslims": ("muslim", "muslims", "islamic"),
        "Jews": ("jew", "jews", "jewish"),
        "Hindus": ("hindu", "hindus"),
        "Buddhists": ("buddhist", "buddhists"),
        "Sikhs": ("sikh", "sikhs"),
        "non-religious": ("atheist", "atheists", "agnostics"),
    },
    "region": {
        "Africa": ("african", "africans", "nigerian", "nigerians", "kenyan", "kenyans", "ethiopian", "ethiopians",
                   "egyptian", "egyptians", "ghanaian", "ghanaians"),
        "East and Southeast Asia": ("chinese", "japanese", "korean", "koreans", "vietnamese", "thai", "indonesian",
                                    "indonesians", "filipino", "filipinos", "taiwanese"),
        "South Asia": ("indian", "indians", "pakistani", "pakistanis", "bangladeshi", "bangladeshis", "sri lankan"),
        "Middle East": ("arab", "arabs", "iranian", "iranians", "turkish", "turks", "israeli", "israelis",
                        "palestinian", "palestinians", "kurdish", "kurds"),
        "Europe": ("european", "europeans", "british", "german", "germans", "french", "italian", "italians",
                   "spanish", "polish", "ukrainian", "ukrainians", "russian", "russians", "dutch", "swedish"),
        "North America": ("american", "americans", "canadian", "canadians"),
        "Latin America": ("latin american", "mexican", "mexicans", "brazilian", "brazilians", "colombian",
                          "colombians", "argentinian", "argentinians", "cuban", "cubans"),
        "Oceania": ("australian", "australians", "new zealander", "new zealanders"),
    },
    "ethnicity": {
        "Black": ("african american", "african americans", *_of("black")),
        "white": ("caucasian", "caucasians", *_of("white")),
        "Asian": ("asian", "asians"),
        "Hispanic": ("hispanic", "hispanics", "latino", "latinos", "latina", "latinas"),
        "Indigenous": ("native american", "native americans", "first nations", "aboriginal", "inuit", "maori",
                       *_of("indigenous")),
        "Roma": ("romani", "roma people", "sinti"),
        "migrants": ("immigrant", "immigrants", "refugee", "refugees", "asylum seeker", "asylum seekers"),
    },
    "orientation": {
        "gay and lesbian": ("gay", "gays", "lesbian", "lesbians", "homosexual", "homosexuals"),
        "bisexual": ("bisexual", "bisexuals"),
        "queer": ("queer", "lgbt", "lgbtq", "lgbtqia"),
        "heterosexual": ("heterosexual", "heterosexuals"),
    },
    "disability": {
        "sight": ("visually impaired", "colour blind", "color blind", "colorblind", *_of("blind")),
        "hearing": ("hearing impaired", "hard of hearing", *_of("deaf")),
        "mobility": ("wheelchair", "wheelchairs", "paraplegic", "amputee", "amputees"),
        "mind": ("autistic", "autism", "dyslexic", "dyslexia", "down syndrome", "adhd", "mentally ill"),
        "in general": ("disability", "disabilities", *_of("disabled"), "people with disabilities"),
    },
}  # fmt: skip

NEUTRAL = frozenset(term for groups in GROUPS.values() for terms in groups.values() for term in terms) | {
    "black",
    "blacks",
    "white",
    "whites",
    "trans",
    "blind",
    "deaf",
    "disabled",
    "old",
    "young",
    "islam",
    "roma",
}
"""Words that only name people: never toxic by themselves, whatever a lexicon says."""
