"""What stands for a component's code in a key: the wheel's own files, and nothing of the environment."""

from __future__ import annotations

import importlib.metadata
import sys
import types
from pathlib import Path

import pytest

from luthier import provenance
from luthier.explain import explain

CODE = ["luthier_shout/__init__.py,sha256=aa,10", "luthier_shout/words.txt,sha256=bb,20"]
HERE = [
    "luthier_shout/__pycache__/__init__.cpython-311.pyc,,",
    "../../../bin/shout,sha256=cc,200",
    "..\\..\\Scripts\\shout.exe,sha256=cc,200",
    "luthier_shout-1.0.dist-info/INSTALLER,sha256=dd,4",
    "luthier_shout-1.0.dist-info/direct_url.json,sha256=ee,90",
    "luthier_shout-1.0.dist-info/RECORD,,",
]


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The code of a distribution that is installed with a RECORD of these lines."""
    number = 0

    def install(lines: list[str]) -> str:
        nonlocal number
        number += 1
        site = tmp_path / str(number)
        info = site / "luthier_shout-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: luthier-shout\nVersion: 1.0\n")
        (info / "RECORD").write_text("\n".join(lines) + "\n")
        monkeypatch.setattr(sys, "path", [str(site), *sys.path])
        found = importlib.metadata.distribution("luthier-shout")
        monkeypatch.setattr(provenance, "_distribution", lambda name: found)
        return provenance._record_code.__wrapped__("luthier-shout")

    return install


def test_an_edited_source_of_the_core_is_other_code(tmp_path, monkeypatch):
    package = tmp_path / "luthier"
    (package / "cli").mkdir(parents=True)
    for name in ("__init__.py", "cli/run.py"):
        (package / name).write_text("# as released\n")
    core = types.ModuleType("luthier")
    core.__file__ = str(package / "__init__.py")
    monkeypatch.setitem(sys.modules, "luthier", core)
    monkeypatch.setattr(provenance, "is_editable", lambda name: True)
    released = provenance.distribution_code("luthier")
    assert released == provenance.distribution_code("luthier")
    (package / "cli" / "run.py").write_text("# edited since\n")
    assert provenance.distribution_code("luthier") != released


def test_the_same_wheel_is_the_same_code_wherever_and_however_it_is_installed(code):
    assert code(CODE) == code([*reversed(CODE), *HERE])


@pytest.mark.parametrize("changed", [CODE[:1], [CODE[0].replace("aa", "ff"), CODE[1]], [*CODE, "x.py,sha256=aa,1"]])
def test_another_file_is_other_code(code, changed):
    assert code(CODE) != code(changed)


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        ("0.1.0 aa", "0.1.0 bb", "the code of acme-models changed"),  # installed from its source tree
        ("0.1.0 aa", "0.2.0 bb", "acme-models changed: 0.1.0 → 0.2.0"),
        ("2.13.0", "2.13.1", "acme-models changed: 2.13.0 → 2.13.1"),
    ],
)
def test_a_library_that_changed_under_one_version_is_not_told_by_two_equal_versions(before, now, told):
    def ingredients(version):
        part = {"component": "full", "plugin": "tune", "config": {}, "code": "cc", "requires": {"acme-models": version}}
        return {"parts": [part], "inputs": {}, "runtimes": {}}

    assert explain(ingredients(before), ingredients(now)) == told
