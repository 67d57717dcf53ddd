"""What a model is measured in."""

from __future__ import annotations

from luthier_optimize.outcome import Tried
from luthier_optimize.timing import Trial, _Kept, environment_of


def test_threads_wait_as_their_library_or_the_user_has_them_wait(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    alone = environment_of(2)
    assert "OMP_WAIT_POLICY" not in alone
    assert alone["LUTHIER_THREADS"] == alone["OMP_NUM_THREADS"] == "2"
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert environment_of(2)["OMP_WAIT_POLICY"] == "active"


def test_times_of_threads_that_waited_otherwise_are_taken_anew(tmp_path, monkeypatch):
    model, trial = Tried("int8", model="a"), Trial([], "", 1, 1, 2, "cpu", [], [])
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    _Kept(tmp_path / "times.json", [model], trial).put(0, model, {"decode": 1.0})
    assert _Kept(tmp_path / "times.json", [model], trial).get(0, model) == {"decode": 1.0}
    monkeypatch.delenv("OMP_WAIT_POLICY")
    assert _Kept(tmp_path / "times.json", [model], trial).get(0, model) is None
