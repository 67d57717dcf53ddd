"""`luthier.lock`: what it says, and how a run is held to it."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from dataclasses import replace

import pytest
from typer.testing import CliRunner

import luthier
from luthier import lock, provenance
from luthier.api import open_session
from luthier.cli import app
from luthier.lock import Code, Lock, differences, lock_of, read_lock

HERE = Lock(
    Code("0.1.0", "cc"),
    "3.11.7",
    "x86_64 linux",
    {"luthier-text": Code("0.1.0", "aa")},
    {"torch": "2.13.0", "polars": "2.1.0"},
    {"luthier-optimum": {"transformers": "4.57.6"}},
)


@pytest.fixture
def cli(project):
    return lambda *arguments: CliRunner().invoke(app, [str(each) for each in arguments])


def edit(path, change):
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def told(result):
    assert result.exit_code == 1
    return result.stderr


# --- what differs -------------------------------------------------------------------------------------


def test_the_same_is_no_difference_and_what_only_the_lock_names_is_none():
    assert differences(HERE, HERE) == []
    assert differences(HERE, replace(HERE, plugins={}, requirements={}, environments={})) == []


TORCH = {"torch": "2.12.0", "polars": "2.1.0"}
OLDER = {"luthier-text": Code("0.0.9", "bb")}
OTHER_CODE = {"luthier-text": Code("0.1.0", "bb")}
NEWER_CORE = "luthier: the lock says 0.2.0, here is 0.1.0"
CODE_OF_CORE = "the code of luthier: the lock says dd, here is cc"
IN_OPTIMUM = "transformers in the environment of luthier-optimum: the lock says 4.57.0, here is 4.57.6"
OPTIMUM = {"luthier-optimum": {"transformers": "4.57.0"}}


@pytest.mark.parametrize(
    ("part", "locked", "said", "remedy"),
    [
        ("requirements", TORCH, "torch: the lock says 2.12.0, here is 2.13.0", "pip install torch==2.12.0"),
        ("requirements", {"polars": "2.1.0"}, "torch: the lock says nothing, here is 2.13.0", "write the lock again"),
        ("luthier", Code("0.2.0", "cc"), NEWER_CORE, "pip install luthier==0.2.0"),
        ("luthier", Code("0.1.0", "dd"), CODE_OF_CORE, "--force-reinstall"),
        ("python", "3.12.1", "python: the lock says 3.12.1, here is 3.11.7", "uv venv --python 3.12.1"),
        ("platform", "arm64 darwin", "platform: the lock says arm64 darwin, here is x86_64 linux", "run it on arm64"),
        ("plugins", OLDER, "luthier-text: the lock says 0.0.9, here is 0.1.0", "pip install luthier-text==0.0.9"),
        ("plugins", OTHER_CODE, "the code of luthier-text: the lock says bb, here is aa", "--force-reinstall"),
        ("plugins", {}, "luthier-text: the lock says nothing, here is 0.1.0", "write the lock again"),
        ("environments", OPTIMUM, IN_OPTIMUM, "luthier env build luthier-optimum"),
    ],
)
def test_each_difference_names_both_sides_and_the_remedy(part, locked, said, remedy):
    (difference,) = differences(replace(HERE, **{part: locked}), HERE)
    assert str(difference).startswith(f"{said}; ")
    assert remedy in difference.remedy


def test_of_a_source_tree_no_reinstall_is_advised():
    locked = replace(HERE, luthier=Code("0.1.0", "dd"), plugins=OTHER_CODE)
    found = differences(locked, HERE, editable=["luthier", "luthier-text"])
    assert [difference.what for difference in found] == ["the code of luthier", "the code of luthier-text"]
    assert not any("pip" in difference.remedy for difference in found)


# --- writing it, and holding a run to it --------------------------------------------------------------


def test_a_locked_run_refuses_every_difference_before_any_work(cli, project):
    cli("lock", "recipe.yaml")
    with (project / "plugins.d" / "toys.py").open("a") as file:
        file.write("# another byte\n")
    edit(project / "luthier.lock", lambda record: record["luthier"].update(version="9.9"))
    message = told(cli("run", "recipe.yaml", "--locked", "--quiet"))
    assert "luthier: the lock says 9.9" in message
    assert "pip install luthier==9.9" in message
    assert "the code of toys.py" in message
    assert not list((project / ".luthier").glob("runs/*"))


def test_a_locked_run_refuses_other_code_of_the_core(cli, project):
    cli("lock", "recipe.yaml")
    edit(project / "luthier.lock", lambda record: record["luthier"].update(code="ff" * 32))
    message = told(cli("run", "recipe.yaml", "--locked", "--quiet"))
    assert "the code of luthier: the lock says ffffffffffff, here is" in message


def test_a_lock_of_the_first_format_is_held_to_what_it_says(cli, project):
    cli("lock", "recipe.yaml")
    options = ("run", "recipe.yaml", "--locked", "--quiet", "--until", "words")
    edit(project / "luthier.lock", lambda record: record.update(version=1, luthier=record["luthier"]["version"]))
    assert cli(*options).exit_code == 0
    edit(project / "luthier.lock", lambda record: record.update(luthier="0.0.1"))
    assert "luthier: the lock says 0.0.1" in told(cli(*options))


def test_a_lock_elsewhere_is_written_with_the_command_that_its_absence_advises(cli, project):
    options = ("--quiet", "--until", "words")
    missing = told(cli("run", "recipe.yaml", "--lock-file", "team.lock", *options))
    assert "there is no lock team.lock" in missing
    assert "luthier lock RECIPE --output team.lock" in missing
    assert cli("lock", "recipe.yaml", "--output", "team.lock").exit_code == 0
    assert not (project / "luthier.lock").exists()
    assert cli("run", "recipe.yaml", "--lock-file", "team.lock", *options).exit_code == 0
    edit(project / "team.lock", lambda record: record.update(python="2.7"))
    assert "--output team.lock" in told(cli("run", "recipe.yaml", "--lock-file", "team.lock", *options))
    assert "there is no directory nowhere" in told(cli("lock", "recipe.yaml", "--output", "nowhere/team.lock"))


def test_a_run_writes_the_lock_that_luthier_lock_writes_and_keeps_to_it(cli, project):
    assert cli("lock", "recipe.yaml").exit_code == 0
    text = (project / "luthier.lock").read_text()
    assert json.loads(text)["plugins"].keys() == {"toys.py"}
    assert list(json.loads(text)) == sorted(json.loads(text))
    # The lock does not say what the recipe's values are.
    options = ("--quiet", "--until", "words", "--set", "words.count=100")
    assert cli("run", "recipe.yaml", "--locked", *options).exit_code == 0
    (path,) = (project / ".luthier" / "runs").iterdir()
    assert (path / "luthier.lock").read_text() == text
    # Nothing is left to do, which is no reason to look away.
    edit(project / "luthier.lock", lambda record: record.update(python="2.7"))
    assert "python: the lock says 2.7" in told(cli("run", "recipe.yaml", "--locked", *options))
    assert cli("run", "recipe.yaml", "--lock-file", path / "luthier.lock", *options).exit_code == 0


def test_the_same_from_python(cli, project, run):
    with pytest.raises(luthier.InputError, match="there is no lock"):
        run(until="words", locked=True)
    cli("lock", "recipe.yaml")
    shutil.copy("luthier.lock", "team.lock")
    edit(project / "team.lock", lambda record: record.update(platform="abacus"))
    for path in ("team.lock", project / "team.lock"):
        with pytest.raises(luthier.InputError, match="the lock says abacus"):
            run(until="words", locked=path)
    assert run(until="words", locked=True).state == "done"


def test_a_lock_that_cannot_be_read_says_so(cli, project):
    path = project / "luthier.lock"
    assert "Write it: luthier lock RECIPE\n" in told(cli("run", "recipe.yaml", "--locked"))
    path.write_text(HERE.to_json()[:100])
    message = told(cli("run", "recipe.yaml", "--locked"))
    assert "luthier.lock cannot be read" in message
    assert "Write it again: luthier lock RECIPE\n" in message


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, "null", "{}", '{"version": Infinity}'])
def test_what_is_no_lock_is_refused(tmp_path, text):
    (tmp_path / "luthier.lock").write_text(text)
    with pytest.raises(luthier.InputError, match="cannot be read"):
        read_lock(tmp_path / "luthier.lock")
    with pytest.raises(luthier.InputError, match="cannot be read: Is a directory"):
        read_lock(tmp_path)


@pytest.mark.parametrize(
    ("edited", "where"),
    [
        ({"plugins": {"shout.py": "abc"}}, "plugins.shout.py"),
        ({"plugins": {"shout.py": {"version": "", "code": 12}}}, "plugins.shout.py.code"),
        ({"plugins": {"shout.py": {"code": "ab"}}}, "plugins.shout.py.version"),
        ({"plugins": ["shout.py"]}, "plugins"),
        ({"requirements": {"torch": 2.13}}, "requirements.torch"),
        ({"environments": {"luthier-optimum": 3}}, "environments.luthier-optimum"),
        ({"environments": {"luthier-optimum": {"torch": None}}}, "environments.luthier-optimum.torch"),
        ({"luthier": "0.1.0"}, "luthier"),
        ({"python": None}, "python"),
        ({"colour": "red"}, "colour"),
        ({"version": 1}, "luthier.version"),
    ],
)
def test_a_lock_edited_into_another_shape_says_where(tmp_path, edited, where):
    path = tmp_path / "luthier.lock"
    path.write_text(json.dumps(json.loads(HERE.to_json()) | edited))
    with pytest.raises(luthier.InputError, match=f"it is no lock: {where}: "):
        read_lock(path)


@pytest.mark.parametrize("version", [True, "2", 0, 2.0, None])
def test_the_version_of_the_format_is_a_whole_number(tmp_path, version):
    path = tmp_path / "luthier.lock"
    path.write_text(json.dumps(json.loads(HERE.to_json()) | {"version": version}))
    with pytest.raises(luthier.InputError, match="the version of its format"):
        read_lock(path)


def test_a_lock_of_a_newer_luthier_is_refused(tmp_path):
    path = tmp_path / "luthier.lock"
    path.write_text(json.dumps({"version": lock.LOCK_VERSION + 1, "whatever": []}))
    with pytest.raises(luthier.InputError, match="newer Luthier"):
        read_lock(path)


def test_a_lock_is_read_as_it_was_written(tmp_path):
    (tmp_path / "luthier.lock").write_text(HERE.to_json())
    assert read_lock(tmp_path / "luthier.lock") == HERE


def test_versions_in_keys_are_locked(monkeypatch, tmp_path):
    monkeypatch.setenv("LUTHIER_PLUGINS", "text")
    (tmp_path / "data.jsonl").write_text('{"text": "one"}\n')
    (tmp_path / "recipe.yaml").write_text(
        "luthier: 1\nsteps:\n  - source: jsonl\n    path: data.jsonl\n  - clean: unicode\n"
    )
    found = lock_of(open_session(tmp_path / "recipe.yaml").plan)
    assert found.plugins["luthier-text"].version == "0.1.0"
    assert {"polars", "ftfy"} <= found.requirements.keys()


def test_a_source_tree_and_its_wheel_are_the_same_code(tmp_path):
    package = tmp_path / "luthier_shout"
    (package / "__pycache__").mkdir(parents=True)
    (package / "words").mkdir()
    files = {"__init__.py": b"hookimpl = None\n", "words/loud.txt": b"HEY", "__pycache__/__init__.cpython-311.pyc": b""}
    for name, content in files.items():
        (package / name).write_bytes(content)
    digests = {name: base64.urlsafe_b64encode(hashlib.sha256(content).digest()) for name, content in files.items()}
    record = "".join(
        f"luthier_shout/{name},sha256={digests[name].rstrip(b'=').decode()},{len(content)}\n"
        for name, content in files.items()
    )
    record += "luthier_shout-1.0.dist-info/RECORD,,\n"
    of_tree = provenance._lines_as_in_record(package / "__init__.py")
    assert provenance._hash_lines(of_tree) == provenance._hash_lines(provenance._lines_of_code(record))
    (package / "words" / "loud.txt").write_bytes(b"HO!!")
    assert provenance._lines_as_in_record(package / "__init__.py") != of_tree
