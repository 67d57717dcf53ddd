"""The cleaner `pii`: what it finds, what it leaves, and that masking is idempotent and complete."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import phonenumbers
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stdnum import iban, luhn

import luthier
from luthier import Context, Dataset
from luthier.testing import make_context
from luthier_text import cleaners
from luthier_text._pii import rules

MakeDataset = Callable[..., Dataset]

FOUND = [
    ("Write to Jane.Doe+lists@mail.example.org.", "Write to <EMAIL>."),
    ("jürgen@müller.de or <o'brien@example.ie>", "<EMAIL> or <<EMAIL>>"),
    ("Call +44 20 8366 1177 now", "Call <PHONE> now"),
    ("Call (415) 555-0890, or 510-748-8230.", "Call <PHONE>, or <PHONE>."),
    ("415.555.0890 is the same", "<PHONE> is the same"),
    ("card 4111 1111 1111 1111, exp 12/30", "card <CARD>, exp 12/30"),
    ("5555555555554444 or 3782-822463-10005", "<CARD> or <CARD>"),
    ("to GB82 WEST 1234 5698 7654 32 by Monday", "to <IBAN> by Monday"),
    ("DE89370400440532013000; de89 3704 0044 0532 0130 00 BIC", "<IBAN>; <IBAN> BIC"),
    ("from 93.184.216.34:443 and [2606:2800:220:1::1946]", "from <IP>:443 and [<IP>]"),
]

LEFT = [
    "Version 10.22.33.44 and 1.2.3.4 of it; dpkg 1.15.8.6, since curl 7.80.21.90; see section 24.31.2.7.",
    "libfoo-93.184.216.34 (>= 93.184.216.34-1), http/93.184.216.34, 1.3.6.1.4.1.311.21.20, 93.184.216.340",
    "127.0.0.1, 192.168.1.20, 10.20.30.40, 255.255.255.0, 239.255.255.250, fe80::1, 2001:db8::1 and std::vector",
    "which had to be:: here, B::, DBD::*, 2D:: and 12:34:56",
    "ISBN 978-3-16-148410-0, ISBN 0-201-07981-X, ISBN: 415-555-0890, DOI 10.1080/10618600.2019, 10.1101/164889",
    "4111111111111112 fails Luhn; 0000000000000000, 1234567812345670 and 9780306406157000 are no issuer's",
    "x4111111111111111, 4111111111111111.5, 4111 1111 1111 1111 1111, 0.4111111111111111",
    "GB83 WEST 1234 5698 7654 32 has wrong digits; DE8937040044053201300 is too short; GB82WEST",
    "2147483647 bytes at 2012-08-03, 0.841470984807897 of 64055 16998, 16 502 530 000; 02/03/2004 10:11",
    "user@host, git@github, sprite@2x.png, getty@tty1.service, user@1000.service.d, @decorator",
    "a @ b.org, mail (at) example.org",
]


def masked(text: str | None, ctx: Context, **configuration: Any) -> Any:
    frame = pl.DataFrame({"id": ["a"], "text": [text], "source": ["s"], "group": ["a"]})
    return cleaners.pii(frame, ctx, **configuration)["text"][0]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """A context for many examples: each overwrites what the one before noted."""
    return make_context(tmp_path_factory.mktemp("shared"))


@pytest.mark.parametrize(("text", "expected"), FOUND)
def test_what_identifies_people_is_masked(text: str, expected: str, ctx: Context) -> None:
    assert masked(text, ctx) == expected


@pytest.mark.parametrize("text", LEFT)
def test_what_only_looks_so_is_left_alone(text: str, ctx: Context) -> None:
    assert masked(text, ctx) == text


def test_a_column_that_has_no_text_is_refused(ctx: Context) -> None:
    frame = pl.DataFrame({"id": ["a"], "text": ["b"], "vote": [1]})
    with pytest.raises(luthier.InputError, match="pii: columns: the data has no column 'txet'; did you mean 'text'"):
        cleaners.pii(frame, ctx, columns=["txet"])
    with pytest.raises(luthier.InputError, match="secrets: columns: the column 'vote' is Int64, not text") as error:
        cleaners.secrets(frame, ctx, columns=["vote"])
    assert error.value.remedy == "These are: id, text."


def test_parameters(ctx: Context) -> None:
    text = "a@b.org at 192.168.1.20 or 020 8366 1177 or 030 1234567"
    assert masked(text, ctx, kinds=["email"]) == "<EMAIL> at 192.168.1.20 or 020 8366 1177 or 030 1234567"
    assert masked(text, ctx, kinds=["ip"], public_addresses_only=False).split(" or ")[0] == "a@b.org at <IP>"
    assert masked("10.0.0.1, not 1.2.3.4", ctx, public_addresses_only=False) == "<IP>, not 1.2.3.4"
    assert masked(text, ctx, kinds=["phone"], regions=["GB", "DE"]) == "a@b.org at 192.168.1.20 or <PHONE> or <PHONE>"
    assert masked(text, ctx, kinds=["phone"], regions=[]) == text
    assert masked("a@b.org", ctx, replacement="[removed]") == "[removed]"
    assert masked(None, ctx) is None


def test_values_are_numbered_by_row_over_all_columns_and_spellings(ctx: Context) -> None:
    frame = pl.DataFrame(
        {
            "id": ["a", "b"],
            "prompt": ["From A@x.org to b@x.org, +1 (415) 555-0890", "c@x.org"],
            "answer": ["a@x.org wrote to B@x.org, 415-555-0890", None],
        }
    )
    done = cleaners.pii(frame, ctx, replacement="<{kind}_{number}>")
    assert done["prompt"].to_list() == ["From <EMAIL_1> to <EMAIL_2>, <PHONE_1>", "<EMAIL_1>"]
    assert done["answer"].to_list() == ["<EMAIL_1> wrote to <EMAIL_2>, <PHONE_1>", None]


def test_every_column_of_text_is_masked_and_no_other(ctx: Context) -> None:
    turns = [[{"role": "user", "content": "I am a@b.org"}, {"role": "assistant", "content": "Hello"}], []]
    frame = pl.DataFrame(
        {
            "id": ["a@b.org", "c"],
            "group": ["a@b.org", "c"],
            "source": ["a@b.org", "c"],
            "split": ["train", "test"],
            "messages": turns,
            "prompt": ["me: a@b.org", "nothing"],
            "tags": [["x", "a@b.org", None], None],
            "deep": [{"number": 1, "notes": ["a@b.org"]}, {"number": 2, "notes": None}],
            "vote": [1, -1],
            "nothing": pl.Series([None, None], dtype=pl.Null),
        }
    )
    done = cleaners.pii(frame, ctx)
    kept = ["id", "group", "source", "split", "vote", "nothing"]
    assert done.select(kept).equals(frame.select(kept))
    assert done.schema == frame.schema
    assert done.row(1) == frame.row(1)
    row = done.row(0, named=True)
    assert row["messages"] == [{"role": "user", "content": "I am <EMAIL>"}, {"role": "assistant", "content": "Hello"}]
    assert (row["prompt"], row["tags"], row["deep"]) == (
        "me: <EMAIL>",
        ["x", "<EMAIL>", None],
        {"number": 1, "notes": ["<EMAIL>"]},
    )
    only = cleaners.pii(frame, ctx, columns=["messages", "nothing"])
    assert only["messages"].equals(done["messages"])
    assert only["prompt"].equals(frame["prompt"])


def test_what_was_masked_is_counted_and_shown_without_its_values(tmp_path: Path, ctx: Context) -> None:
    frame = pl.DataFrame(
        {
            "id": ["a", "b", "c"],
            "text": ["x@y.org, 93.184.216.34, z@y.org", "none", "4111 1111 1111 1111"],
            "summary": ["x@y.org"] * 3,
        }
    )
    done = cleaners.pii(frame, ctx)
    assert done.height == 3
    assert {name: metric.value for name, metric in ctx.metrics.items()} == {
        "documents_masked": 3,
        "matches_email": 5,
        "matches_phone": 0,
        "matches_card": 1,
        "matches_iban": 0,
        "matches_ip": 1,
    }
    table = pl.read_parquet(ctx.notes / "tables" / "pii.parquet")
    assert table.row(1) == ("a", "text", "ip", "<EMAIL>, <IP>, <EMAIL>")
    assert table.group_by("kind").len().sort("kind").rows() == [("card", 1), ("email", 5), ("ip", 1)]
    written = b"".join(path.read_bytes() for path in (tmp_path / "context").rglob("*") if path.is_file())
    assert b"y.org" not in written
    assert b"1111" not in written


emails = st.from_regex(r"\A[a-z][a-z0-9._]{0,10}[a-z0-9]@[a-z][a-z0-9]{0,8}\.(?:org|de|co\.uk)\Z")
addresses = (
    st.one_of(
        st.ip_addresses(v=4).filter(lambda address: max(address.packed) >= 20),
        st.ip_addresses(v=6, network="2a00::/12"),
    )
    .filter(lambda address: address.is_global and not address.is_multicast and not address.is_reserved)
    .map(str)
)
cards = st.from_regex(r"\A(?:4[0-9]{14}|5[1-5][0-9]{13}|3[47][0-9]{12})\Z").map(
    lambda digits: digits + luhn.calc_check_digit(digits)
)
accounts = st.from_regex(r"\A[0-9]{18}\Z").map(lambda digits: f"DE{iban.calc_check_digits('DE00' + digits)}{digits}")
phones = st.sampled_from(["US", "GB", "DE", "FR", "IN", "BR"]).map(
    lambda region: phonenumbers.format_number(
        phonenumbers.example_number(region), phonenumbers.PhoneNumberFormat.INTERNATIONAL
    )
)
valued = st.one_of(
    st.tuples(st.just(kind), values)
    for kind, values in (("email", emails), ("ip", addresses), ("card", cards), ("iban", accounts), ("phone", phones))
)


@settings(deadline=None)
@given(valued, st.sampled_from(["{}", "It is {}.", "({}), twice: {}", "“{}”\n{}"]))
def test_valid_values_are_masked_as_their_kind(shared: Context, case: tuple[str, str], around: str) -> None:
    kind, value = case
    assert masked(around.replace("{}", value), shared) == around.replace("{}", f"<{kind.upper()}>")


words = st.sampled_from(
    [
        "version",
        "see",
        "ISBN",
        "<EMAIL>",
        "<PHONE_1>",
        "[x]",
        "@",
        "1.2.3.4",
        ":",
        "::",
        " ",
        "\n",
        "+",
        "-",
        "/",
        ".",
        "12",
        "555",
    ]
)
anything = st.lists(st.one_of(words, valued.map(lambda case: case[1]), st.text(max_size=8)), max_size=12).map(" ".join)
glued = st.lists(st.one_of(words, valued.map(lambda case: case[1])), max_size=8).map("".join)


@settings(deadline=None)
@given(st.one_of(anything, glued, st.text()), st.sampled_from(["<{kind}>", "[{kind} {number}]", "(gone)"]))
def test_masking_is_idempotent_and_only_ever_masks(shared: Context, text: str, replacement: str) -> None:
    once = masked(text, shared, replacement=replacement)
    found = shared.metrics["documents_masked"].value
    assert bool(found) == (once != text)
    assert masked(once, shared, replacement=replacement) == once
    assert shared.metrics["documents_masked"].value == 0


@settings(deadline=None)
@given(st.one_of(anything, glued, st.text()), st.booleans())
def test_a_gate_lets_nothing_through_that_its_rule_finds(text: str, everywhere: bool) -> None:
    for rule in rules(["email", "phone", "card", "iban", "ip"], ["US", "DE"] if everywhere else [], public_only=False):
        found = list(rule.find(text))
        gated = pl.select(pl.lit(text).str.contains(rule.gate)).item()
        assert gated or not found, rule.kind
        assert all(one.end <= two.start for one, two in pairwise(found))


@settings(deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=("Nd", "Cs"), exclude_characters="@:")))
def test_text_without_any_is_unchanged(shared: Context, text: str) -> None:
    assert masked(text, shared) == text


def test_the_report_and_the_record_of_a_run_show_no_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUTHIER_DISABLE", "mlflow")
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        '{"text": "Ask jane@doe.example.org about it", "answer": "+44 20 8366 1177"}\n{"text": "password = hunter2x"}\n'
    )
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "luthier: 1\nname: masked\nsteps:\n  - source: jsonl\n    path: rows.jsonl\n  - clean: pii\n"
        "  - clean: secrets\n    action: drop\n  - clean: whitespace\n"
    )
    run = luthier.run(recipe, display=False)
    frame = run.dataset("whitespace").frame()
    assert frame.select("text", "answer").rows() == [("Ask <EMAIL> about it", "<PHONE>")]
    samples = run.report("pii").samples()
    assert [set(sample) for sample in samples["changed"]] == [{"id", "after"}]
    assert "<EMAIL>" in samples["changed"][0]["after"]
    assert run.report("secrets").samples() == {"changed": []}
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "&lt;EMAIL&gt;" in page
    steps = {"pii": ["jane@doe", "8366"], "secrets": ["jane@doe", "8366", "hunter2x"], "whitespace": ["hunter2x"]}
    for step, values in steps.items():
        notes = [path.read_bytes() for path in run.report(step).path.rglob("*") if path.is_file()]
        assert notes
        for value in values:
            assert value not in page
            assert not any(value.encode() in note for note in notes)


@pytest.mark.parametrize(
    ("configuration", "message"),
    [
        ({"replacement": "XXX"}, "replacement: 'XXX' is not set off by brackets"),
        ({"replacement": ""}, "is not set off by brackets"),
        ({"replacement": "<"}, "is not set off by brackets"),
        ({"replacement": "<a><b>"}, "is not set off by brackets"),
        ({"replacement": "<{name}>"}, "replacement: there is no {name}"),
        ({"replacement": "<{kind>"}, "replacement: "),
        ({"columns": ["text", "text"]}, "columns: 'text' is named twice"),
        ({"regions": ["us"]}, "regions: there is no region 'us'; did you mean 'US'?"),
    ],
)
def test_a_wrong_configuration_is_refused_while_planning(configuration: dict[str, Any], message: str) -> None:
    given_by_default = {"columns": None, "replacement": "<{kind}>", "regions": ["US"]}
    with pytest.raises(luthier.InputError) as error:
        cleaners.pii.__luthier__.check(**given_by_default | configuration)  # type: ignore[attr-defined]
    assert message in error.value.message
