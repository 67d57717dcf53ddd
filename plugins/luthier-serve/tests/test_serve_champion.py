"""A server that follows the champion: no request is lost, and what is damaged never replaces what works."""

from __future__ import annotations

import threading
from pathlib import Path

import luthier

SCRIPTED = Path(__file__).parent / "scripted.py"
RECIPE = """
luthier: 1
name: greeter
steps:
  - architecture: toy
    greeting: {greeting}
    pause: 0.02
    damaged: {damaged}
"""


def test_a_new_champion_takes_over_without_a_lost_request(luthier_project, start, monkeypatch):
    monkeypatch.setenv("LUTHIER_PLUGINS", "scripted,serve")

    def promoted(greeting: str, *, damaged: bool = False) -> luthier.Champion:
        recipe = luthier_project.recipe(RECIPE.format(greeting=greeting, damaged=str(damaged).lower()))
        return luthier.promote(luthier_project.run(recipe, plugins=[SCRIPTED]))

    before = promoted("before")
    first = promoted("first")
    places = ("--home", str(luthier_project.path / ".luthier"), "--feedback", str(luthier_project.path / "feedback.db"))
    server = start(*places, model="champion")
    # Feedback may be about an answer of before the server was started.
    for model, status in ((before.hash, 201), (first.hash, 201), ("0" * 64, 404)):
        row = {"prompt": "greet", "answer": "before", "vote": 1, "model": model}
        assert server.http.post("/v1/feedback", json=row).status_code == status
    answer = server.chat("greet")
    assert (answer.choices[0].message.content, answer.system_fingerprint) == ("first", first.hash)
    long = server.chat("count 200", stream=True)
    next(long)

    answers: list[tuple[int, str]] = []
    stop = threading.Event()

    def ask_on() -> None:
        while not stop.is_set():
            told = server.post("greet")
            answers.append((told.status_code, told.json()["choices"][0]["message"]["content"]))

    asking = threading.Thread(target=ask_on)
    asking.start()
    second = promoted("second")
    server.wait_until(lambda: server.metric("luthier_champion_switches_total") == 1)
    server.wait_until(lambda: bool(answers) and answers[-1][1] == "second")
    stop.set()
    asking.join()
    assert {status for status, _ in answers} == {200}
    texts = [text for _, text in answers]
    assert texts == sorted(texts)
    assert server.chat("greet").system_fingerprint == second.hash
    # What was begun with the first champion ends with it, whole.
    assert "".join(chunk.choices[0].delta.content or "" for chunk in long).endswith("199 ")

    promoted("third", damaged=True)
    server.wait_until(lambda: server.metric("luthier_champion_refusals_total") == 1)
    assert server.chat("greet").choices[0].message.content == "second"
    assert "the new champion is refused" in server.log
    assert "the weights are damaged" in server.log
    assert server.http.get("/healthz").status_code == 200

    luthier.rollback(to=first.number)
    server.wait_until(lambda: server.metric("luthier_champion_switches_total") == 2)
    assert server.chat("greet").choices[0].message.content == "first"
    assert server.openai.models.retrieve("champion").hash == first.hash


def test_without_a_champion_there_is_nothing_to_serve(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from luthier.cli import app

    monkeypatch.setenv("LUTHIER_PLUGINS", "serve")
    result = CliRunner().invoke(app, ["serve", "champion", "--home", str(tmp_path)])
    assert result.exit_code == 1
    assert "champion" in result.stderr
