"""In a notebook: the live display, a plan and a run as tables; once in a real kernel, where there is one."""

from __future__ import annotations

import contextlib
import html
import re
import sys
import time
import types

import pytest

import luthier
from luthier import display
from luthier.display import notebook
from luthier.errors import GateRefused
from luthier.events import RunStarted, StepFailed, StepLog, StepProgress, StepStarted
from luthier.markup import html_table

RUN = RunStarted(run="1-small", recipe="small", steps=["jsonl", "lora"])


class Cell:
    """The outputs of a cell, as IPython's `display` would fill them."""

    def __init__(self):
        self.outputs = []
        self.updates = 0

    def display(self, bundle, *, raw, display_id):
        assert raw
        assert display_id is True
        self.outputs.append(bundle)
        return Handle(self, len(self.outputs) - 1)

    @property
    def text(self):
        return "".join(bundle["text/plain"] for bundle in self.outputs)

    @property
    def html(self):
        return "".join(bundle["text/html"] for bundle in self.outputs)


class Handle:
    def __init__(self, cell, index):
        self.cell, self.index = cell, index

    def update(self, bundle, *, raw):
        assert raw
        self.cell.updates += 1
        self.cell.outputs[self.index] = bundle


@pytest.fixture
def cell(monkeypatch):
    """A cell of a notebook in which this process is the kernel."""
    found = Cell()
    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: types.SimpleNamespace(kernel=object())
    shown = types.ModuleType("IPython.display")
    shown.display = found.display
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", shown)
    return found


def started(step="lora", time=100.0):
    return StepStarted(step=step, stage="tune", component=step, why="not done yet", time=time)


def progress(done, time, **metrics):
    return StepProgress(step="lora", done=done, total=100.0, metrics=metrics, time=time)


def visible(code):
    """What a reader sees of HTML."""
    return html.unescape(re.sub(r"<[^>]*>", "", code))


def test_ipython_in_a_terminal_is_no_notebook(cell, monkeypatch, capsys):
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", types.SimpleNamespace)
    with display.show() as shown:
        shown(RUN)
    assert cell.outputs == []
    assert capsys.readouterr().err == "run 1-small: 2 steps\n"


def test_what_runs_is_shown_below_what_is_finished_and_does_not_stay(cell):
    shown = notebook.NotebookDisplay()
    for event in (RUN, started(), progress(1, 101.0), progress(41, 105.0, loss=2.5)):
        shown(event)
    shown.draw()
    assert cell.text.startswith("run 1-small: 2 steps\n")
    assert "2/2  tune lora" in cell.text
    assert "loss 2.5" in cell.text
    assert "41 of 100 (41%), 10/s, 5.9 s left" in cell.text
    assert visible(cell.html) == cell.text
    shown(StepFailed(step="lora", message="no", remedy=""))
    shown.close()
    assert cell.text.split("\n") == ["run 1-small: 2 steps", "✗ lora failed", ""]
    assert len(cell.outputs) == 1


def test_nothing_is_sent_twice_and_nothing_empty(cell):
    shown = notebook.NotebookDisplay()
    shown.draw()
    assert cell.outputs == []
    shown(RUN)
    shown.draw()
    shown.draw()
    assert (len(cell.outputs), cell.updates) == (1, 0)


def test_events_alone_send_nothing_so_a_thousand_a_second_do_not_flicker(cell):
    shown = notebook.NotebookDisplay()
    shown(RUN)
    shown(started())
    for number in range(1000):
        shown(progress(number / 10, 100.0 + number / 1000))
    assert cell.outputs == []


def test_messages_are_escaped_and_can_be_sent(cell):
    message = "<script>alert(1)</script> & [bold]\ud800"
    shown = notebook.NotebookDisplay()
    shown(StepLog(step="lora", level="warning", message=message))
    shown.close()
    assert "<script" not in cell.html
    assert visible(cell.html).strip() == "lora: warning: <script>alert(1)</script> & [bold]\\ud800"
    cell.html.encode()


def test_long_lines_are_not_cut(cell):
    shown = notebook.NotebookDisplay()
    shown(StepLog(step="lora", level="info", message="word " * 100))
    shown.close()
    assert visible(cell.html).count("word") == 100
    assert visible(cell.html).count("\n") == 1


def test_many_lines_go_on_in_the_next_output(cell):
    shown = notebook.NotebookDisplay()
    for number in range(notebook.LINES_OF_AN_OUTPUT + 1):
        shown(StepLog(step="lora", level="info", message=f"line {number}"))
    shown.close()
    assert len(cell.outputs) == 2
    assert re.findall(r"line (\d+)", cell.text) == [str(number) for number in range(notebook.LINES_OF_AN_OUTPUT + 1)]


def test_the_display_goes_on_while_no_event_comes(cell):
    with display.show() as shown:
        shown(RUN)
        shown(started(time=time.time()))
        deadline = time.monotonic() + 30
        while cell.updates < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert cell.updates >= 2
    assert cell.text == "run 1-small: 2 steps\n"


def test_tables_are_escaped():
    table = html_table(["x"], [['<b> & "c"']])
    assert "<b>" not in table
    assert visible(table) == 'x<b> & "c"'


def test_a_plan_and_a_run_are_short_texts_and_tables(project, run):
    planned = luthier.plan(project / "recipe.yaml")
    assert repr(planned[0]) == "<Planned words (source:words): runs (not done yet)>"
    assert repr(planned[1]) == "<Planned longer (clean:longer) + capitals (clean:capitals): depends on words>"
    finished = visible(run()._repr_html_())
    assert "300 added" in finished
    assert "✓agreementagreement is 1" in finished
    rows = [
        [visible(text) for text in re.findall(r"<td.*?</td>", row)]
        for row in re.findall(r"<tr>.*?</tr>", luthier.plan(project / "recipe.yaml")._repr_html_())
    ]
    assert rows[1] == ["1", "words", "source:words", "cached"]
    assert rows[3] == ["3", "capitals", "clean:capitals", "cached"]
    assert [row[1] for row in rows[9:]] == ["accuracy", "accuracy@base", "accuracy@reference", "agreement"]


def test_in_a_real_kernel(project):
    """With no more than a kernel has: what stays of a run, of one where nothing was to do, of a plan, of a Run."""
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient and ipykernel")
    pytest.importorskip("ipykernel", reason="needs nbclient and ipykernel")
    from nbformat.v4 import new_code_cell, new_notebook

    code = ["import luthier", "run = luthier.run('recipe.yaml', jobs=1)"]
    code += ["again = luthier.run('recipe.yaml')", "luthier.plan('recipe.yaml')", "again"]
    written = new_notebook(cells=[new_code_cell(each) for each in code])
    sent = []

    class Client(nbclient.NotebookClient):
        def process_message(self, message, cell, cell_index):
            sent.append(message["content"].get("data", {}).get("text/plain", ""))
            return super().process_message(message, cell, cell_index)

    Client(written, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(project)}}).execute()
    assert any("●  1/10  source words" in text for text in sent)
    shown = [cell["outputs"] for cell in written.cells]
    assert [[output["output_type"] for output in outputs] for outputs in shown] == [
        [],
        ["display_data"],
        ["display_data"],
        ["execute_result"],
        ["execute_result"],
    ]
    lines = shown[1][0]["data"]["text/plain"].rstrip("\n").split("\n")
    assert "●" not in "".join(lines)
    assert re.fullmatch(r"\S+-toys  done after .*  ✓ accuracy accuracy  ✓ agreement agreement", lines[-1])
    assert shown[2][0]["data"]["text/plain"].startswith("nothing to do: every step is cached; run ")
    assert "cached" in shown[3][0]["data"]["text/html"]
    assert "done in" in shown[4][0]["data"]["text/html"]


def test_luthier_run_tells_the_outcome_also_where_a_gate_refused_it(project, cell):
    strict = {"agreement.gate": {"agreement": {"at_least": 2.0}}}
    again = "nothing to do: every step is cached; run "
    for overrides, expected in [({}, "done after"), ({}, again), (strict, "refused after"), (strict, again)]:
        cell.outputs.clear()
        with pytest.raises(GateRefused) if overrides else contextlib.nullcontext():
            luthier.run(project / "recipe.yaml", overrides=overrides, jobs=1)
        assert expected in cell.text
        assert ("✗" in cell.text) == bool(overrides)
        assert len(cell.outputs) == 1


def test_luthier_run_tells_of_a_run_that_failed(project, cell):
    with pytest.raises(luthier.LuthierError):
        luthier.run(project / "recipe.yaml", overrides={"teach.fail": "value"}, jobs=1)
    lines = cell.text.rstrip("\n").split("\n")
    assert lines[-3] == "✗ teach failed"
    assert re.fullmatch(r"\S+-toys  failed after .*", lines[-2])
    assert lines[-1] == "run it again to go on from what is finished"
