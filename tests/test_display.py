"""The display: the numbers that it shows, plain lines at most every few seconds, what is drawn live."""

from __future__ import annotations

import io
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from luthier import display, formatting
from luthier.display.drawing import repeating
from luthier.display.plain import PlainDisplay
from luthier.display.progress import Meter
from luthier.display.terminal import TerminalDisplay
from luthier.events import (
    GateDecided,
    PluginHookFailed,
    RunStarted,
    StepFailed,
    StepFinished,
    StepLog,
    StepProgress,
    StepStarted,
    StepWaits,
)
from luthier.runrecord import GateResult, RunData
from luthier.runs import Run
from luthier.store import Store


def started(step="lora", stage="tune", time=100.0):
    return StepStarted(step=step, stage=stage, component=step, why="not done yet", time=time)


def progress(done, time, total=100.0, step="lora", **metrics):
    return StepProgress(step=step, done=done, total=total, metrics=metrics, time=time)


def finished(step="lora", stage="tune", **changes):
    values = {"cached": False, "seconds": 12.0, "artifact": "a" * 64, "metrics": {}, "counts": {}} | changes
    return StepFinished(step=step, stage=stage, component=step, **values)


RUN = RunStarted(run="1-small", recipe="small", steps=["jsonl", "shout", "strip", "lora"])
COUNTS = {"documents_in": 24013, "kept": 23900, "changed": 0, "dropped": 113, "quarantined": 0, "added": 0}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1m00s"),
        (185, "3m05s"),
        (7620, "2h07m"),
    ],
)
def test_seconds(seconds, text):
    assert formatting.format_seconds(seconds) == text


UNITS = {"s": 1, "m": 60, "h": 3600}


@given(
    st.floats(min_value=0, max_value=1e6)
    | st.builds(lambda whole, off: abs(whole - off), st.integers(0, 10_000), st.floats(0, 1))
    | st.builds(lambda minutes, off: abs(60 * minutes - off), st.integers(0, 10_000), st.floats(0, 1))
)
def test_seconds_read_back_are_near_and_never_sixty_of_anything(seconds):
    text = formatting.format_seconds(seconds)
    parts = [(float(number), unit) for number, unit in re.findall(r"([\d.]+) ?([smh])", text)]
    assert all(number < 60 for number, unit in parts if unit != "h"), text
    smallest = 0.1 if "." in text else UNITS[parts[-1][1]]
    assert abs(sum(number * UNITS[unit] for number, unit in parts) - seconds) <= smallest, text


def test_counts_and_metrics():
    assert formatting.describe_counts(COUNTS) == "24,013 in, 23,900 kept, 113 dropped"
    assert formatting.describe_counts({"added": 5}) == "5 added"
    assert formatting.format_metrics({"loss": 2.31449, "tokens_per_second": 1234.5, "c": 0, "d": 1}) == (
        "loss 2.314  tokens_per_second 1,234  c 0"
    )
    distilled = {"teacher_kl_before": 1.5, "valid_loss": 2.0, "train_loss": 1.9, "tokens": 5000, "teacher_kl": 0.25}
    assert formatting.format_metrics(distilled) == "teacher_kl_before 1.5  teacher_kl 0.25  valid_loss 2"


def test_a_meter_tells_rate_and_time_left():
    meter = Meter(100.0)
    assert (meter.rate, meter.left, meter.describe()) == (None, None, "")
    meter.advance(progress(10, 105.0, loss=3.0))
    assert meter.rate is None  # what came before the first report is start-up
    meter.advance(progress(30, 109.0))
    assert meter.rate == 5.0
    assert meter.left == 14.0
    assert meter.describe() == "30 of 100 (30%), 5/s, 14 s left"
    assert meter.metrics == {"loss": 3.0}


def test_a_meter_forgets_a_slow_start():
    meter = Meter(0.0)
    meter.advance(progress(1, 0.0))
    meter.advance(progress(2, 100.0))
    for second in range(1, 41):
        meter.advance(progress(2 + second, 100.0 + second))
    assert meter.rate == pytest.approx(1.0)


def test_a_meter_starts_again_for_the_next_subject():
    meter = Meter(0.0)
    meter.advance(progress(1, 0.0))
    meter.advance(progress(90, 10.0))
    meter.advance(progress(5, 11.0))
    assert meter.rate is None
    meter.advance(progress(7, 12.0))
    assert meter.rate == 2.0


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), max_size=30), st.none() | st.floats(0, 1e6))
def test_a_meter_never_fails_and_never_counts_down_below_zero(points, total):
    meter = Meter(0.0)
    for done, moment in points:
        meter.advance(progress(done, moment, total))
        assert meter.rate is None or meter.rate > 0
        assert meter.fraction is None or 0 <= meter.fraction <= 1
        assert isinstance(meter.describe(), str)


def plain(*events):
    stream = io.StringIO()
    listener = PlainDisplay(stream)
    for event in events:
        listener(event)
    return stream.getvalue().splitlines()


def test_plain_lines():
    lines = plain(
        RUN,
        finished("jsonl", "source", cached=True),
        started("shout", "clean"),
        started("strip", "clean"),
        finished("shout", "clean", artifact="", seconds=0.0, counts={"shout": COUNTS}),
        finished("strip", "clean", seconds=3.0),
    )
    assert lines == [
        "run 1-small: 4 steps",
        "[1/4] source jsonl: cached",
        "[2/4] clean shout: not done yet",
        "[3/4] clean strip: not done yet",
        "[2/4] clean shout: done  24,013 in, 23,900 kept, 113 dropped",
        "[3/4] clean strip: done  3.0 s",
    ]


def test_plain_progress_is_rate_limited():
    reports = [progress(number, 100.0 + number / 2, loss=3.0 - number / 100) for number in range(1, 61)]
    lines = plain(RUN, started(), *reports)[2:]
    assert len(lines) == 3
    assert lines[0] == "[4/4] tune lora: 20 of 100 (20%), 2/s, 40 s left  loss 2.8"


def test_plain_progress_names_the_subject_of_a_validator():
    lines = plain(RUN, started(), progress(50, 200.0, step="lora@base"))
    assert lines[-1].startswith("[4/4] tune lora @base: 50 of 100 (50%)")


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (StepLog(step="lora", level="info", message="warming up"), "  lora: warming up"),
        (StepLog(step="lora", level="warning", message="odd [bold]"), "  lora: warning: odd [bold]"),
        (StepWaits(step="lora"), "  lora: another run is doing this step; waiting for its result"),
        (StepFailed(step="lora", message="no", remedy=""), "✗ lora failed"),
        (
            PluginHookFailed(plugin="p", hook="luthier_run_finished", error="E: x"),
            "  luthier_run_finished of the plugin p failed: E: x",
        ),
        (GateDecided(step="r", metric="m", value=1, bound="b", passed=True, reason="m is 1"), "✓ gate r: m is 1"),
        (GateDecided(step="r", metric="m", value=0, bound="b", passed=False, reason="m is 0"), "✗ gate r: m is 0"),
    ],
)
def test_notices_are_the_same_in_both_displays(event, text):
    assert plain(event) == [text]
    assert live(80, event).rstrip("\n").splitlines()[-1].rstrip() == text


def live(width, *events, force_terminal=True):
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=force_terminal, no_color=True, legacy_windows=False)
    listener = TerminalDisplay(console)
    for event in events:
        listener(event)
    console.print(listener)
    return without_codes(stream.getvalue())


def without_codes(text):
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


@pytest.mark.parametrize("width", [40, 80, 120])
def test_what_is_drawn_live_fits_the_width(width):
    names = [f"component-with-a-long-name-{number}" for number in range(5)]
    events = [
        RUN,
        *(started(name, "clean") for name in names),
        progress(40, 101.0, step=names[-1], loss=2.5, tokens=9e5),
    ]
    for line in live(width, *events, finished("jsonl", "source", counts={"jsonl": COUNTS})).splitlines():
        assert len(line) <= width


def test_the_live_display_shows_the_running_step_and_keeps_the_finished():
    shown = live(
        100,
        RUN,
        finished("jsonl", "source", cached=True, counts={"jsonl": COUNTS}),
        started("shout", "clean"),
        started("strip", "clean"),
        progress(1, 101.0, step="strip"),
        progress(41, 105.0, step="strip", loss=2.5),
    )
    assert "· 1/4  source       jsonl" in shown
    assert "cached  24,013 in, 23,900 kept, 113 dropped" in shown
    assert "3/4  clean shout + strip" in shown
    assert "loss 2.5" in shown
    assert "41 of 100 (41%), 10/s, 5.9 s left" in shown


def test_the_live_display_is_empty_between_steps():
    assert live(80, RUN, started(), StepFailed(step="lora", message="no", remedy="")).split() == ["✗", "lora", "failed"]


def test_show_is_plain_without_a_terminal_and_silent_when_quiet(capsys):
    with display.show() as listener:
        listener(RUN)
    with display.show(quiet=True) as listener:
        listener(RUN)
    captured = capsys.readouterr()
    assert captured.err == "run 1-small: 4 steps\n"
    assert captured.out == ""


def test_show_is_live_on_a_console_and_leaves_only_what_is_finished():
    stream = io.StringIO()
    console = Console(file=stream, width=80, force_terminal=True, no_color=True, legacy_windows=False)
    with display.show(console=console) as listener:
        for event in (RUN, started(), progress(1, 101.0), finished()):
            listener(event)
    assert "✓ 4/4  tune         lora" in without_codes(stream.getvalue())


def test_nothing_is_drawn_while_a_line_is_printed():
    class Slow(io.StringIO):
        printing = False

        def write(self, text):
            self.printing = True
            time.sleep(0.1)
            self.printing = False
            return super().write(text)

    stream, seen = Slow(), []

    class Live:
        def refresh(self):
            seen.append(stream.printing)

    shown = TerminalDisplay(Console(file=stream, width=80, force_terminal=True, legacy_windows=False))
    with repeating(lambda: shown.redraw(Live()), 0.001):
        shown(RunStarted(run="r", recipe="r", steps=["one"]))
        time.sleep(0.1)
    assert len(seen) > 1
    assert not any(seen)


@pytest.fixture
def finished_run(tmp_path):
    data = RunData("1-small", "small", "", 0, "", state="done", seconds=65.0)
    data.gates = [
        GateResult("rouge", "rougeL", 0.3, "base + 0.1", True, "rougeL is 0.3"),
        GateResult("parity", "mean_kl", 0.5, "0.02", False, "mean_kl is 0.5"),
    ]
    return Run(tmp_path, Store(tmp_path), data)


def test_the_outcome_of_a_run_that_began(finished_run):
    assert plain_outcome(finished_run, RUN) == ["1-small  done after 1m05s  ✓ rouge rougeL  ✗ parity mean_kl"]
    finished_run.report_path.touch()
    assert plain_outcome(finished_run, RUN)[1:] == [f"report: {finished_run.report_path}"]
    finished_run.data.state = "failed"
    assert plain_outcome(finished_run, RUN)[1] == "run it again to go on from what is finished"


def test_the_outcome_where_nothing_was_to_do(finished_run):
    assert plain_outcome(finished_run) == [
        "nothing to do: every step is cached; run 1-small",
        "✓ gate rouge: rougeL is 0.3",
        "✗ gate parity: mean_kl is 0.5",
    ]


def plain_outcome(finished, *events):
    stream = io.StringIO()
    shown = PlainDisplay(stream)
    for event in events:
        shown(event)
    stream.truncate(stream.seek(0))
    shown.tell_outcome(finished)
    return stream.getvalue().splitlines()


def test_a_terminal_is_told_the_outcome_whole(finished_run):
    finished_run.path = finished_run.path / ("long" * 30)
    finished_run.path.mkdir()
    finished_run.report_path.touch()
    stream = io.StringIO()
    console = Console(file=stream, width=40, force_terminal=True, no_color=True, legacy_windows=False)
    with display.show(console=console) as shown:
        for event in (RUN, started(), progress(1, 101.0)):
            shown(event)
        shown.tell_outcome(finished_run)
    lines = [line.strip() for line in without_codes(stream.getvalue()).splitlines() if line.strip()]
    assert lines[-1] == f"report: {finished_run.report_path}"
    assert "1-small  done after 1m05s  ✓ rouge rougeL  ✗ parity mean_kl" in lines


def test_quiet_is_silent_about_the_outcome(finished_run, capsys):
    with display.show(quiet=True) as shown:
        shown(RUN)
        shown.tell_outcome(finished_run)
    assert shown.run == "1-small"
    assert capsys.readouterr() == ("", "")
