"""The plugin keeps the rules for plugins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from luthier.testing import conformance

PO = 'msgid ""\nmsgstr "Language: fr\\n"\n\nmsgid "Yes"\nmsgstr "Oui"\n'
PAGE = ".TH HELLO 1\n.SH NAME\nhello \\- greet\n"
PACKAGES = "Package: hello\nDescription: example package\n It greets\n its user.\n"


@pytest.fixture(scope="module")
def luthier_configurations(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    directory: Path = tmp_path_factory.mktemp("documents")
    (directory / "one.txt").write_text("One document.\n\nOf two paragraphs.", encoding="utf-8")
    rows = [{"text": f"Document number {number}."} for number in range(20)]
    (directory / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (directory / "fr.po").write_text(PO, encoding="utf-8")
    (directory / "apt_Packages").write_text(PACKAGES, encoding="utf-8")
    (directory / "man1").mkdir()
    (directory / "man1" / "hello.1").write_text(PAGE, encoding="utf-8")
    return {
        "jsonl": {"path": directory / "rows.jsonl"},
        "text-files": {"path": directory},
        "docstrings": {"packages": ["typer"]},
        "debian-descriptions": {"path": directory},
        "gettext": {"path": directory},
        "manual-pages": {"path": directory},
        "summarization": {"target": "text"},
        "translation": {"prompt": "Translate:\n{text}", "target": "text"},
        "prompt-completion": {"prompt": "{source}: {text}", "completion": "{text}"},
        "chat": {"answer": "{text}"},
        "classification": {"label": "source"},
        "preference": {"chosen": "text", "rejected": "source"},
        "unpaired-preference": {"completion": "text", "label": "source", "liked": ["source-1"]},
    }


test_conformance = conformance("text")
