"""The cleaner `secrets`: keys by their forms, passwords by what stands before them, the rest by its randomness."""

from __future__ import annotations

import base64
import json
import string
from itertools import pairwise
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier import Context
from luthier.testing import make_context
from luthier_text import cleaners
from luthier_text._secrets import entropy, rules

KINDS = ["private-key", "api-key", "jwt", "password", "token"]
LETTERS = string.ascii_letters + string.digits


def made(prefix: str, length: int, alphabet: str = LETTERS) -> str:
    """A key of a form, made here so that no file of the project holds one that a scanner would report."""
    return prefix + "".join(alphabet[(7 * place * place + 3 * place) % len(alphabet)] for place in range(length))


HEADER = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "typ": "JWT"}).encode()).decode().rstrip("=")
JWT = f"{HEADER}.{made('eyJ', 40)}.{made('', 43)}"
BLOCK = f"-----BEGIN RSA PRIVATE KEY-----\n{made('MII', 61)}\n{made('', 64)}\n-----END RSA PRIVATE KEY-----"

API_KEYS = [
    made("AKIA", 16, string.ascii_uppercase),
    made("ghp_", 36),
    made("github_pat_", 22) + made("_", 59),
    made("glpat-", 20),
    made("xoxb-", 40, string.digits),
    "https://hooks.slack.com/services/" + made("T", 9, "ABC0") + made("/B", 9, "ABC0") + made("/", 24),
    made("AIza", 35),
    made("sk-proj-", 48),
    made("sk-ant-api03-", 80),
    made("sk-", 20) + made("T3BlbkFJ", 20),
    made("hf_", 34, string.ascii_letters),
    made("sk_live_", 24),
    made("npm_", 36),
    made("pypi-AgE", 60),
    made("SG.", 22) + made(".", 43),
    made("123456789:AA", 33),
]

FOUND = [
    (f"key:\n{BLOCK}\nend", "key:\n<PRIVATE_KEY>\nend"),
    (BLOCK.partition("-----END")[0] + "and then", "<PRIVATE_KEY>\nand then"),
    (f"auth {JWT}, then", "auth <JWT>, then"),
    ("postgres://app:s3cr3t@db.example/x", "postgres://app:<PASSWORD>@db.example/x"),
    ("password = hunter2", "password = <PASSWORD>"),
    ("DB_PASSWORD='correct'; x", "DB_PASSWORD='<PASSWORD>'; x"),
    ('{"api_key": "abcdefgh", "id": 1}', '{"api_key": "<PASSWORD>", "id": 1}'),
    ("aws_secret_access_key=wJalrXUtnFEMI/K7MDENG/bPxRfiCYzz", "aws_secret_access_key=<PASSWORD>"),
    ("my passphrase: tr0ub4dor&3.", "my passphrase: <PASSWORD>."),
    ("Authorization: Bearer abcdefghij0123456789", "Authorization: Bearer <TOKEN>"),
    ("then q7Xf2LmP9sKd4Rt8Vw3Zb6Nc ends", "then <TOKEN> ends"),
]

LEFT = [
    "password: the password of the user; token: str; secret=None; passwd=PASSWORD, password = <password>",
    "api_key=os.environ['KEY'], token=self.token, secret: ${SECRET}, password=%s, api_key: your-api-key, pwd='***'",
    "postgres://user:pass@host/db, https://user:${PASS}@host, smb://me:PASSWORD@host, git@github.com:me/it.git",
    "unk_token='[UNK]', eos_token=\"</s>\", pad_token = tokenizer.eos_token, --page-token=PAGE_TOKEN",
    "commit 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b, 123e4567-e89b-12d3-a456-426614174000",
    "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=, AAAAB3NzaC1yc2EAAAADAQABAAABgQC7",
    "AutoModelForSeq2SeqLM in transformers/models/auto/modeling_auto2.py, projects/my-project/locations/us-central1",
    "-----BEGIN PUBLIC KEY-----, sk-learn, skip_live_tests, hf_hub_download, eyJhbGciOi, AKIA, ghp_",
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """A context for many examples: each overwrites what the one before noted."""
    return make_context(tmp_path_factory.mktemp("shared"))


def masked(text: str, ctx: Context, **configuration: Any) -> Any:
    return cleaners.secrets(pl.DataFrame({"id": ["a"], "text": [text]}), ctx, **configuration)["text"][0]


@pytest.mark.parametrize(("text", "expected"), FOUND)
def test_secrets_are_masked(text: str, expected: str, ctx: Context) -> None:
    assert masked(text, ctx) == expected


@pytest.mark.parametrize("key", API_KEYS)
def test_keys_are_known_by_their_forms(key: str, ctx: Context) -> None:
    assert masked(f"use {key}, or '{key}'.", ctx, kinds=["api-key"]) == "use <API_KEY>, or '<API_KEY>'."
    assert masked(f"x{key}", ctx, kinds=["api-key"]) in (f"x{key}", "x<API_KEY>")


@pytest.mark.parametrize("text", LEFT)
def test_what_only_looks_so_is_left_alone(text: str, ctx: Context) -> None:
    assert masked(text, ctx) == text


def test_rows_are_dropped_with_what_they_had(ctx: Context) -> None:
    frame = pl.DataFrame(
        {
            "id": ["a", "b", "c", "d"],
            "prompt": ["one", "password = hunter2", "three", None],
            "messages": [[], [], [{"role": "user", "content": f"it is {JWT}"}], None],
        }
    )
    assert cleaners.secrets(frame, ctx, action="drop").equals(frame.filter(pl.col("id").is_in(["a", "d"])))
    counted = {name: metric.value for name, metric in ctx.metrics.items() if metric.value}
    assert counted == {"documents_dropped": 2, "matches_password": 1, "matches_jwt": 1}
    table = pl.read_parquet(ctx.notes / "tables" / "secrets.parquet")
    assert table.rows() == [
        ("b", "prompt", "password", "password = <PASSWORD>"),
        ("c", "messages", "jwt", "it is <JWT>"),
    ]


def test_entropy_is_shannons() -> None:
    assert entropy("aaaa") == 0
    assert entropy("abab") == pytest.approx(1)
    assert entropy(string.hexdigits[:16]) == pytest.approx(4)


@settings(deadline=None)
@given(st.text(LETTERS + "+/", min_size=32, max_size=64).filter(lambda text: entropy(text) > 4.5))
def test_random_text_is_a_token_unless_it_is_of_few_kinds(text: str) -> None:
    kinds = [set(string.ascii_lowercase), set(string.ascii_uppercase), set(string.digits)]
    (rule,) = [rule for rule in rules(["token"], 4.5) if rule.gate.startswith("[A-Za-z0-9+/_-]")]
    found = [match.value for match in rule.find(f"x {text} y")]
    assert found in ([], [text])
    if not all(kind & set(text) for kind in kinds):
        assert found == []


MARKS = [
    "password",
    "token",
    " = ",
    ": ",
    "'",
    '"',
    "hunter2",
    "<PASSWORD>",
    "[API_KEY 1]",
    "<",
    ">",
    "abc1",
    "\n",
    " ",
]
PARTS = ["https://", "u:p4ss@h", "-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----", "Bearer ", JWT, BLOCK]
pieces = st.sampled_from([*API_KEYS, *PARTS, *MARKS])
texts = st.one_of(
    st.lists(pieces, max_size=8).map("".join),
    st.lists(st.one_of(pieces, st.text(max_size=6)), max_size=8).map(" ".join),
)


@settings(deadline=None)
@given(texts, st.sampled_from(["<{kind}>", "[{kind} {number}]", "(gone)"]))
def test_masking_is_idempotent(shared: Context, text: str, replacement: str) -> None:
    once = masked(text, shared, replacement=replacement)
    assert bool(shared.metrics["documents_masked"].value) == (once != text)
    assert masked(once, shared, replacement=replacement) == once
    for key in (*API_KEYS, JWT):
        # A key that runs on into a neighbour is no key of the form; one that stands by itself never stays.
        assert f" {key} " not in f" {once} " or f" {key} " not in f" {text} "


@settings(deadline=None)
@given(texts)
def test_a_gate_lets_nothing_through_that_its_rule_finds(text: str) -> None:
    for rule in rules(KINDS, 3.0):
        found = list(rule.find(text))
        assert pl.select(pl.lit(text).str.contains(rule.gate)).item() or not found, rule.gate
        assert all(one.end <= two.start for one, two in pairwise(found))
