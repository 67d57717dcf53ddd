"""What a model is measured in."""

from __future__ import annotations

from luthier_optimize.timing import environment_of


def test_threads_wait_as_their_library_or_the_user_has_them_wait(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    alone = environment_of(2)
    assert "OMP_WAIT_POLICY" not in alone
    assert alone["LUTHIER_THREADS"] == alone["OMP_NUM_THREADS"] == "2"
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert environment_of(2)["OMP_WAIT_POLICY"] == "active"
