"""Executes a plan: takes what is cached, has workers do the rest, commits each result, judges the gates."""

from __future__ import annotations

import contextlib
import shutil
import socket
import time
from dataclasses import asdict, replace
from pathlib import Path

from luthier import drift
from luthier.artifacts import Artifact, Report
from luthier.errors import GateRefused, InputError, LuthierError, PluginError
from luthier.events import (
    Event,
    GateDecided,
    Listener,
    RunFinished,
    RunStarted,
    RunState,
    StepFailed,
    StepFinished,
    StepStarted,
    StepWaits,
)
from luthier.files import REMEDY, disk_error
from luthier.judging import decide
from luthier.keys import History, Planned
from luthier.performing import Performer, counts_of
from luthier.plans import Node, Plan
from luthier.pool import Pool, StepError
from luthier.runrecord import GateResult, NodeResult, StepResult
from luthier.runs import Run, now
from luthier.searching import Attempt, Done, resolve_step, search
from luthier.store import StepRecord, Store, WorkDirectory
from luthier.trials import SearchResult


class DamagedInput(Exception):
    """A stored artifact did not verify; it is quarantined, and the step that gave it runs again."""


class Runner:
    """One execution of a plan, with a pool of its own, which it ends."""

    def __init__(
        self,
        plan: Plan,
        store: Store,
        run: Run,
        pool: Pool,
        *,
        history: History,
        listen: Listener,
        device: str,
    ) -> None:
        self._plan = plan
        self._store = store
        self._run = run
        self._pool = pool
        self._history = History(history.ingredients, dict(history.failures))
        self._listen = listen
        self._performer = Performer(plan, pool, store.generations, device)
        self._done: dict[str, Done] = {}
        self._sound: set[str] = set()
        self._made: dict[str, bool] = {}
        self._asked_device = False

    def execute(self) -> None:
        """Do every node.

        Raises:
            GateRefused: if a bound did not hold; the validators after it have run all the same.
            LuthierError: a step's error, after its event was sent and the run's state saved.
        """
        began = time.monotonic()
        ids = [step.id for step in self._run.steps]
        self._listen(RunStarted(run=self._run.id, recipe=self._plan.recipe.name, steps=ids))
        state: RunState = "failed"
        try:
            self._do_all()
            refused = self._refused()
            state = "refused" if refused else "failed"
            if refused:
                raise GateRefused(
                    "\n".join(f"{gate.step}: {gate.reason}" for gate in refused),
                    "Nothing was promoted. What was measured is in the run's report.",
                    run=self._run.id,
                )
            state = "done"
        except LuthierError as error:
            self._run.data.error = error.message
            raise
        except KeyboardInterrupt:
            state = "interrupted"
            raise
        finally:
            # Whatever happened, nothing works on while the run's end is told and its report written.
            self._pool.close()
            self._run.data.state = state
            for step in self._run.steps:
                step.state = "waiting" if step.state == "running" else step.state
            self._run.data.finished = now()
            self._run.data.seconds = round(time.monotonic() - began, 3)
            self._run.save()
            self._listen(RunFinished(run=self._run.id, state=state, seconds=self._run.data.seconds))

    def _do_all(self) -> None:
        while True:
            try:
                self._do_each()
                self._link_model()
            except DamagedInput:
                # What made the damaged artifact is no longer cached, so starting over does just that again.
                self._done.clear()
                self._run.gates.clear()
            else:
                return

    def _do_each(self) -> None:
        nodes = self._plan.nodes
        for node, following in zip(nodes, [*nodes[1:], None], strict=True):
            if self._refused() and node.task != "validate":
                return
            if not self._asked_device and self._resolve(node).record is None:
                self._asked_device = True
                self._performer.check_device()
            self._do(node)
            if node.task == "validate" and (following is None or following.step is not node.step):
                self._judge(node)

    def _refused(self) -> list[GateResult]:
        return [gate for gate in self._run.gates if not gate.passed]

    def _do(self, node: Node) -> None:
        planned = self._resolve(node)
        try:
            planned, done = self._search(planned) if node.step.space else (planned, self._get(planned))
        except (LuthierError, OSError) as error:
            failure = _as_luthier_error(error, self._store.root)
            self._fail(node, failure)
            raise failure from error
        self._done[node.id] = done
        self._note(planned, done)

    def _resolve(self, node: Node) -> Planned:
        outputs = self._plan.given | {name: done.artifact.hash for name, done in self._done.items()}
        return resolve_step(self._plan, node, outputs, self._store, self._history, ignore_force=self._made)

    def _inputs(self, node: Node) -> dict[str, Artifact]:
        return {
            name: self._champion(made) if made.given else self._done[made.id].artifact
            for name, made in node.inputs.items()
        }

    def _champion(self, node: Node) -> Artifact:
        artifact = self._store.get(node.given)
        if artifact is None:
            name = self._plan.recipe.name
            raise InputError(
                f"the model of the champion {name!r} is damaged, so nothing can be compared with it",
                f"Go back to an earlier one: luthier registry rollback {name}",
            )
        return artifact

    def _get(self, planned: Planned) -> Done:
        """A node's result, from the store or by doing it."""
        done = self._take(planned) if planned.record else self._work(planned)
        name = planned.node.id
        self._made[name] = self._made.get(name, False) or not done.cached
        # Where a damaged input made this run start over, what it did itself is still its own work.
        return replace(done, cached=False) if self._made[name] else done

    def _search(self, planned: Planned) -> tuple[Planned, Done]:
        """Find the best candidate of a step; what is known of the step is then what is known of that one."""
        node = planned.node
        assert node.step.space is not None
        if planned.record is None:
            self._announce(planned)
            self._check_split(node, node.step.space.search.split)
        result = SearchResult.of(node.step.space)
        self._run.step(node.step.id).search = result

        def tell(event: Event) -> None:
            self._run.save()  # A run that is killed must leave which candidates failed.
            self._listen(event)

        best, done = search(node, result, self._attempt, tell)
        return replace(self._resolve(best), node=node), done

    def _attempt(self, node: Node) -> Attempt:
        planned = self._resolve(node)
        assert planned.key is not None
        if planned.failed:
            return Attempt(planned.key, None, planned.why)
        try:
            return Attempt(planned.key, self._get(planned))
        except StepError as error:
            if not error.refused:
                raise
            self._history.failures[planned.key] = error.message
            return Attempt(planned.key, None, error.message)

    def _check_split(self, node: Node, split: str | None) -> None:
        """See to it that what a search compares by can be measured, before any candidate begins."""
        if split is None or "data" not in node.inputs:
            return
        if not self._performer.rows_in_split(node, self._inputs(node)["data"], split):
            maker = node.inputs["data"].step.id
            raise InputError(
                f"{maker!r} gives no rows in the split `{split}`, on which candidates are compared",
                "Have the `format` step split some off, or give each parameter one value.",
            )

    def _announce(self, planned: Planned) -> None:
        """Tell that the work on a step begins; that of its trials was told with it."""
        if planned.node.trial:
            return
        for step in planned.node.parts:
            self._listen(
                StepStarted(step=step.id, stage=step.stage.name, component=step.component.name, why=planned.why)
            )
            self._run.step(step.id).state = "running"
        self._run.save()

    def _take(self, planned: Planned) -> Done:
        record = planned.record
        assert record is not None
        artifact, report = self._store.get(record.output), self._store.get(record.report)
        if artifact is None or report is None:
            raise DamagedInput
        if planned.node.task == "validate" or planned.node.trial:
            self._verify(report)  # Gates and searches judge what it says.
        return Done(artifact, report, record, cached=True)

    def _work(self, planned: Planned) -> Done:
        node, key = planned.node, planned.key
        assert key is not None
        assert planned.ingredients is not None
        for artifact in self._inputs(node).values():
            self._verify(artifact)
        self._announce(planned)
        with self._store.lease(key, on_wait=lambda: self._listen(StepWaits(step=node.step.id))) as work:
            record = None if self._plan.forced(node) else self._store.step(key)
            if record is not None:
                return self._take(Planned(node, key, planned.ingredients, record, ""))
            began = time.monotonic()
            try:
                details = self._performer.perform(node, self._inputs(node), work, self._listen)
            except LuthierError:
                self._keep_notes(node, work)
                raise
            artifact, report = self._commit(node, work)
            record = StepRecord(
                key=key,
                stage=node.step.stage.name,
                component=node.step.component.name,
                ingredients=planned.ingredients,
                output=artifact.hash,
                report=report.hash,
                seconds=round(time.monotonic() - began, 3),
                finished=now(),
                host=socket.gethostname(),
                details=details,
            )
            self._store.record(record)
            work.discard()
        return Done(artifact, report, record, cached=False)

    def _keep_notes(self, node: Node, work: WorkDirectory) -> None:
        """Keep what a failed step noted, its quarantined records above all, with the run: `failed/STEP/`."""
        if any(path.is_file() for path in work.notes.rglob("*")):
            shutil.copytree(work.notes, self._run.path / "failed" / node.id, dirs_exist_ok=True)

    def _verify(self, artifact: Artifact) -> None:
        """Re-hash an artifact at its first use in this run, unless this run made it."""
        if artifact.hash in self._sound:
            return
        if not self._store.verify(artifact.hash):
            raise DamagedInput
        self._sound.add(artifact.hash)

    def _commit(self, node: Node, work: WorkDirectory) -> tuple[Artifact, Artifact]:
        report = self._store.commit(work.notes, "report", "report")
        artifact = report if node.kind == "report" else self._store.commit(work.output, node.kind, node.form)
        # It was hashed while it was written: no need to read it again in this run.
        self._sound |= {artifact.hash, report.hash}
        return artifact, report

    def _note(self, planned: Planned, done: Done) -> None:
        """Enter a node's result into the run's record and tell the listeners."""
        node = planned.node
        self._enter_node(planned, done.report.hash)
        for index, step in enumerate(node.parts):
            result = self._run.step(step.id)
            report = Report.at(done.report.path / str(index), "report", done.report.hash)
            last = index == len(node.parts) - 1
            self._enter(result, node, report, done, last=last)
            if node.task != "validate" or self._is_last_subject(node):
                self._listen(
                    StepFinished(
                        step=step.id,
                        stage=step.stage.name,
                        component=step.component.name,
                        cached=result.cached,
                        seconds=result.seconds,
                        artifact=result.artifact,
                        metrics=result.metrics,
                        counts={step.id: result.counts} if result.counts else {},
                    )
                )
        self._run.save()

    def _enter_node(self, planned: Planned, report: str) -> None:
        node = planned.node
        for index, step in enumerate(node.parts):
            entry = NodeResult(node.id, node.subject or "", planned.key or "", report, index, planned.ingredients or {})
            nodes = self._run.step(step.id).nodes
            nodes[:] = [other for other in nodes if other.id != node.id] + [entry]

    def _enter(self, result: StepResult, node: Node, report: Report, done: Done, *, last: bool) -> None:
        first_subject = node.subject in (None, "candidate")
        result.state = "done"
        result.cached = done.cached if first_subject else result.cached and done.cached
        # A fused pass counts once, at its last step.
        seconds = done.record.seconds if last else 0.0
        result.seconds = seconds if first_subject else result.seconds + seconds
        if first_subject:
            result.artifact = done.artifact.hash if last else ""
            result.kind, result.form = node.kind, node.form
            result.counts = counts_of(report)
        prefix = "" if first_subject else f"{node.subject}."
        result.metrics |= {f"{prefix}{name}": value for name, value in report.metrics.items()}

    def _is_last_subject(self, node: Node) -> bool:
        return [other for other in self._plan.nodes if other.step is node.step][-1] is node

    def _judge(self, node: Node) -> None:
        step = node.step
        self._run.data.gates = [gate for gate in self._run.gates if gate.step != step.id]
        reports: dict[str, Artifact] = {
            other.subject or "candidate": self._done[other.id].report
            for other in self._plan.nodes
            if other.step is step and other.id in self._done
        }
        if self._plan.evaluates:
            gates = drift.decide(step, self._run, Run.at(self._store.runs / self._plan.evaluates))
        else:
            gates = decide(step, reports, self._plan.recipe.seed, self._without_champion(node))
        for gate in gates:
            self._run.gates.append(gate)
            self._listen(GateDecided(**asdict(gate)))
        self._run.save()

    def _without_champion(self, node: Node) -> str:
        """Why there is no champion to compare a candidate with; empty where there is one."""
        champion, name = self._plan.champion, self._plan.recipe.name
        if champion is None:
            return f"there is no champion {name!r} yet"
        measured = [each.inputs["subject"] for each in self._plan.nodes if each.step is node.step]
        candidate = self._done[measured[0].id].artifact.hash
        return f"this model is the champion {name!r} itself" if candidate == champion.given else ""

    def _fail(self, node: Node, error: LuthierError) -> None:
        """Tell that a node failed: which of its steps, and where the recipe has it."""
        step = node.step if error.part is None else node.parts[error.part]
        for each in node.parts:
            self._run.step(each.id).state = "failed" if each is step else "waiting"
        detail = error.detail if isinstance(error, StepError) else ""
        self._listen(StepFailed(step=step.id, message=error.message, remedy=error.remedy, detail=detail))
        name = step.id if len(node.parts) > 1 else node.id
        where = f"{step.position}: {name}" if step.position else name
        if detail and error.exit_code == PluginError.exit_code:
            kept = self._run.path / "failed" / step.id / "traceback.txt"
            # On a full disk the error itself is worth more than its traceback.
            with contextlib.suppress(OSError):
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_text(detail, encoding="utf-8", errors="backslashreplace")
                error.remedy += f" Its traceback: {kept}"
        error.message = f"{where}: {error.message}"

    def _link_model(self) -> None:
        """Give out the newest model, once every gate of the recipe has let it pass."""
        made = [done.artifact for done in self._done.values() if done.artifact.kind in ("model", "onnx")]
        if made and not self._plan.unjudged and not self._refused():
            self._verify(made[-1])
            self._store.export(made[-1], self._run.model_path)


def _as_luthier_error(error: LuthierError | OSError, store: Path) -> LuthierError:
    if isinstance(error, LuthierError):
        return error
    where = f": {error.filename}" if error.filename else ""
    told = disk_error(error, store, REMEDY) or InputError(f"{error.strerror or error}{where}", "Run it again.")
    told.remedy += " Finished steps are kept."
    return told
