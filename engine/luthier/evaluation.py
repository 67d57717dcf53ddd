"""Measures a champion again, without making a model: whether it still does what it did when it was promoted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from luthier.champions import Champion, champion_in
from luthier.core_stages import CHAMPION
from luthier.drift import drift_gate
from luthier.entries import entry_of
from luthier.errors import GateRefused, InputError
from luthier.events import Listener
from luthier.execution import prepare_environments, run_session, run_shown
from luthier.plans import Node
from luthier.registry import Champions
from luthier.runs import Run
from luthier.sessions import Recipe, Session, open_session
from luthier.suggest import did_you_mean

CONFIDENCE = 0.95


def evaluate(
    recipe: Recipe | str | Path,
    *,
    only: Sequence[str] = (),
    confidence: float = CONFIDENCE,
    overrides: Mapping[str, Any] | None = None,
    plugins: Sequence[str | Path] = (),
    home: str | Path | None = None,
    force: Sequence[str] = (),
    jobs: int | None = None,
    step_timeout: float | None = None,
    device: str = "auto",
    listen: Listener | None = None,
    display: bool = True,
) -> Run:
    """Measure the champion of a recipe's name again, and hold it against what it measured when it was promoted.

    The recipe's validators measure it on the recipe's data as they are now; no model is made. Each metric that their
    gates name is compared with what the promoted run measured: by the paired bootstrap where the examples are the
    same, else by one that draws each side by itself. It is worse only if the whole interval of the difference is on
    the worse side. What nothing changed for, neither model, data nor code, is taken from the store.

    That is a run of its own, with an event log, a report and gates, of which the plugins' hooks are told as of any
    other. It is noted in the champion's history; where nothing is new since the last one, that one is given.

    Args:
        recipe: a YAML file, or a `Recipe`.
        only: the ids of the validators that measure it; all that measure the champion, if empty.
        confidence: of the intervals, both sides together.
        overrides: by step id: `{"feedback.held_out_since": "2026-01-31"}`.
        plugins: one-file plugins besides those in `plugins.d/` beside the recipe.
        home: where the store is; otherwise LUTHIER_HOME, or `.luthier` beside the recipe.
        force: do these steps again.
        jobs: how many processes work on shards side by side; otherwise the number of cores.
        step_timeout: end a worker that reports nothing for so many seconds.
        device: where models run: `auto`, `cpu`, `cuda`, `mps`.
        listen: called with every event.
        display: show progress in the terminal or the notebook.

    Returns:
        The run: `done`, or `refused` where a metric is worse than it was; its gates say which, and why.

    Raises:
        InputError: if there is no champion, its model is damaged, the run that made it was removed, or no validator
            with a gate measures it.
        LuthierError: anything else that went wrong, with its remedy.
    """
    opened = open_session(recipe, overrides=overrides, plugins=plugins, home=home, force=force)
    champion = champion_in(opened.store, opened.recipe.name)
    champion.model()
    session = _of_champion(opened, champion, only, confidence)
    prepare_environments(session.plan, build=False)
    before = session.newest_run()
    do = run_shown if display else run_session
    heard = [listen] if listen else []
    try:
        run = do(session, heard, jobs=jobs, step_timeout=step_timeout, device=device)
    except GateRefused as refusal:
        run = Run.at(opened.store.runs / refusal.run)
    if before is None or run.id != before.id:
        _note(champion, run)
    return run


def _of_champion(session: Session, champion: Champion, only: Sequence[str], confidence: float) -> Session:
    """The part of a recipe that measures its champion: the data, and the validators, with the champion alone."""
    measuring = {
        node.step.id: (node, gate)
        for node in session.plan.nodes
        if node.subject == CHAMPION and (gate := drift_gate(node.step, confidence))
    }
    if not measuring:
        raise InputError(
            f"{session.recipe.name}: no gate names a metric that is measured of the champion",
            "Give a validator a gate: gate: {METRIC: {at_least: NUMBER}}, and `champion` among its `subjects` if it "
            "lists them.",
        )
    for name in only:
        if name not in measuring:
            hint = did_you_mean(name, [*measuring]) or f"These do: {', '.join(measuring)}."
            raise InputError(f"{session.recipe.name}: no step {name!r} with a gate measures the champion", hint)
    validators = [
        # What is measured is all that there is, so it is the candidate of this run.
        replace(node, parts=(replace(node.step, gate=gate),), subject="candidate")
        for node, gate in measuring.values()
        if not only or node.step.id in only
    ]
    needed = _made_of(validators)
    data = [node for node in session.plan.nodes if node.id in needed]
    plan = replace(session.plan, nodes=(*data, *validators), evaluates=champion.run.id)
    return replace(session, plan=plan)


def _made_of(nodes: Sequence[Node]) -> set[str]:
    """The ids of all nodes that these take their inputs from, directly or not."""
    found: set[str] = set()
    waiting = [each for node in nodes for each in node.inputs.values()]
    while waiting:
        node = waiting.pop()
        if node.id not in found:
            found.add(node.id)
            waiting += node.inputs.values()
    return found


def _note(champion: Champion, run: Run) -> None:
    """Keep in the champion's history what came out."""
    worse = [f"{gate.step}: {gate.reason}" for gate in run.gates if not gate.passed]
    compared = sum(not gate.skipped for gate in run.gates)
    why = "; ".join(worse) or f"{compared} of {len(run.gates)} metrics compared, none surely worse"
    entry = entry_of(run, "evaluated", why)
    Champions(champion.store).change(champion.name, lambda current, past: entry)
