"""Environments of their own: a plugin whose requirement conflicts with the main environment's, for real.

The main environment is the one that runs the tests, with a directory before it on the path that holds a
plugin and version 2 of a library. The plugin needs version 1, which lies as a wheel in another directory.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from luthier import InputError, environments
from luthier.environment_damage import damage

PLUGIN = '''
import polars as pl

from luthier import hookimpl

def stamp(frame: pl.DataFrame) -> pl.DataFrame:
    """Write the version of the library into each text."""
    import acme_library

    return frame.with_columns(pl.col("text") + f" {acme_library.VERSION}")

@hookimpl
def luthier_cleaners():
    return [stamp]
'''
SOURCE = '''
import polars as pl

from luthier import hookimpl

def rows():
    """Three rows."""
    import acme_library

    yield pl.DataFrame({"text": [f"{word} {acme_library.VERSION}" for word in ("one", "two", "three")]})

@hookimpl
def luthier_sources():
    return [rows]
'''
RECIPE = "luthier: 1\nsteps:\n  - source: rows\n  - clean: stamp\n"


def distribution(name: str, version: str, files: dict[str, str], *metadata: str, entry: str = "") -> dict[str, str]:
    """The files of an installed distribution, with their RECORD."""
    inside = f"{name.replace('-', '_')}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *metadata]
    whole = {**files, f"{inside}/METADATA": "\n".join(lines) + "\n"}
    whole[f"{inside}/WHEEL"] = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    if entry:
        whole[f"{inside}/entry_points.txt"] = f"[luthier]\n{entry}\n"
    record = [f"{path},sha256={digest(text)},{len(text)}" for path, text in whole.items()]
    return {**whole, f"{inside}/RECORD": "\n".join([*record, f"{inside}/RECORD,,"]) + "\n"}


def digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def lay_down(files: dict[str, str], directory: Path) -> None:
    for path, text in files.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(text)


def tree(directory: Path) -> dict[str, tuple[int, int, str]]:
    """Mode, time of change and hash of each file, but for what Python caches."""
    files = [path for path in directory.rglob("*") if path.is_file() and path.parent.name != "__pycache__"]
    return {
        str(path.relative_to(directory)): (path.stat().st_mode, path.stat().st_mtime_ns, digest(path.read_text()))
        for path in files
    }


def library(version: str, extra: str = "") -> dict[str, str]:
    return distribution("acme-library", version, {"acme_library.py": f"VERSION = {version!r}\n{extra}"})


class Bench:
    """A project, a main environment with a plugin that conflicts with it, and `luthier` in both."""

    def __init__(self, directory: Path) -> None:
        self.project = directory / "project"
        self.main = directory / "main"
        self.wheels = directory / "wheels"
        self.cache = directory / "cache"
        for path in (self.project / "plugins.d", self.main, self.wheels):
            path.mkdir(parents=True)
        (self.project / "plugins.d" / "origin.py").write_text(SOURCE)
        (self.project / "recipe.yaml").write_text(RECIPE)
        lay_down(library("2.0"), self.main)
        self.require("acme-library<2")
        with zipfile.ZipFile(self.wheels / "acme_library-1.0-py3-none-any.whl", "w") as wheel:
            for path, text in library("1.0").items():
                wheel.writestr(path, text)
        self.before = tree(self.main)

    def require(self, *requirements: str) -> None:
        """Install the plugin, with requirements that are not for the main environment."""
        metadata = ("Requires-Dist: luthier", "Provides-Extra: environment")
        extras = [f'Requires-Dist: {each} ; extra == "environment"' for each in requirements]
        lay_down(
            distribution(
                "acme-stamp", "0.1", {"acme_stamp.py": PLUGIN}, *metadata, *extras, entry="stamp = acme_stamp"
            ),
            self.main,
        )

    def share(self) -> None:
        """Install a distribution that the plugin's environment will have in the same version."""
        lay_down(distribution("acme-shared", "1.0", {"acme_shared.py": "X = 1\n"}), self.main)
        self.require("acme-library<2", "acme-shared")

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("UV_", "PIP_"))},
            "PYTHONPATH": os.pathsep.join(filter(None, (str(self.main), os.environ.get("PYTHONPATH")))),
            "LUTHIER_CACHE": str(self.cache),
            "LUTHIER_PLUGINS": "stamp,origin",
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.wheels),
            "PIP_CONFIG_FILE": os.devnull,
            **variables,
        }
        return subprocess.Popen(
            [sys.executable, "-c", "from luthier.cli import main; main()", *arguments],
            cwd=self.project,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def luthier(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, **variables)
        out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def listed(self) -> list[dict[str, object]]:
        found: list[dict[str, object]] = json.loads(self.luthier("env", "list", "--json").stdout)["environments"]
        return found


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A bench whose environment is built; tests that change it make their own."""
    bench = Bench(tmp_path_factory.mktemp("environments"))
    done = bench.luthier("env", "build", "acme-stamp")
    assert done.returncode == 0, done.stderr
    return bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_run_refuses_with_the_command_that_builds(bench: Bench) -> None:
    planned = bench.luthier("plan", "recipe.yaml")
    assert planned.returncode == 0, planned.stderr
    refused = bench.luthier("run", "recipe.yaml")
    assert refused.returncode == 1
    assert "luthier env build acme-stamp" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not list(bench.project.glob(".luthier/runs/*"))


def test_a_step_runs_with_its_own_versions_beside_the_main_ones(built: Bench) -> None:
    done = built.luthier("run", "recipe.yaml")
    assert done.returncode == 0, done.stderr
    import polars as pl

    shards = built.project.glob(".luthier/objects/*/content/shard-00000.parquet")
    texts = {tuple(pl.read_parquet(shard)["text"]) for shard in shards}
    assert texts == {("one 2.0", "two 2.0", "three 2.0"), ("one 2.0 1.0", "two 2.0 1.0", "three 2.0 1.0")}
    again = built.luthier("run", "recipe.yaml")
    assert "nothing to do" in again.stdout
    record = json.loads(next(built.project.glob(".luthier/runs/*/run.json")).read_text())
    assert record["environment"]["environments"]["acme-stamp"]["acme-library"] == "1.0"
    assert record["environment"]["distributions"]["acme-library"] == "2.0"


def test_building_and_running_change_nothing_in_the_main_environment(built: Bench) -> None:
    done = built.luthier("run", "recipe.yaml", "--force", "stamp")
    assert done.returncode == 0, done.stderr
    assert "acme_stamp.py" in built.before
    assert tree(built.main) == built.before


def test_what_both_have_is_linked_and_only_the_rest_takes_space(built: Bench) -> None:
    (environment,) = built.listed()
    assert environment["problems"] == []
    assert environment["installed"] == {"acme-library": "1.0"}
    assert {"luthier", "polars", "pydantic", "acme-stamp"} <= set(environment["linked"])  # type: ignore[call-overload]
    assert environment["own_bytes"] < 10_000  # type: ignore[operator]
    import polars

    there = next(Path(str(environment["path"])).rglob("polars/__init__.py"))
    assert os.path.samefile(there, polars.__file__) or there.read_bytes() == Path(polars.__file__).read_bytes()


def test_a_second_build_finds_the_first(built: Bench) -> None:
    done = built.luthier("env", "build", "acme-stamp")
    assert done.returncode == 0
    assert "built already" in done.stdout


def test_a_run_can_build_first(bench: Bench) -> None:
    done = bench.luthier("run", "recipe.yaml", "--build-environments")
    assert done.returncode == 0, done.stderr
    assert len(bench.listed()) == 1


def test_the_main_environment_can_be_asked_for(bench: Bench) -> None:
    (bench.project / "recipe.yaml").write_text(RECIPE + "    environment: main\n")
    done = bench.luthier("run", "recipe.yaml")
    assert done.returncode == 0, done.stderr
    assert bench.listed() == []
    (bench.project / "recipe.yaml").write_text(RECIPE + "    environment: mein\n")
    refused = bench.luthier("plan", "recipe.yaml")
    assert "recipe.yaml:5:" in refused.stderr
    assert "'main'" in refused.stderr


@pytest.mark.parametrize(
    "what",
    ["version", pytest.param("files", marks=pytest.mark.slow), pytest.param("requirement", marks=pytest.mark.slow)],
)
def test_what_changes_in_the_main_environment_is_noticed_and_built_again(bench: Bench, what: str) -> None:
    bench.share()
    assert bench.luthier("run", "recipe.yaml", "--build-environments").returncode == 0
    if what == "version":
        for path in bench.main.glob("acme_shared-1.0.dist-info/*"):
            path.unlink()
        lay_down(distribution("acme-shared", "1.1", {"acme_shared.py": "X = 2\n"}), bench.main)
        expected = "acme-shared was 1.0 in the main environment and is 1.1"
    elif what == "files":
        (bench.main / "acme_shared.py").unlink()  # as pip does: a new file, not new bytes in the old one
        for path in bench.main.glob("acme_shared-1.0.dist-info/*"):
            path.unlink()
        lay_down(distribution("acme-shared", "1.0", {"acme_shared.py": "X = 2\n"}), bench.main)
        expected = "acme-shared 1.0 was installed anew"
    else:
        for path in bench.main.glob("acme_stamp-0.1.dist-info/*"):
            path.unlink()
        bench.require("acme-library<1.5")
        expected = "the requirements of acme-stamp changed"
    refused = bench.luthier("run", "recipe.yaml")
    assert refused.returncode == 1
    assert expected in refused.stderr
    assert bench.luthier("env", "check").returncode == 1
    assert bench.luthier("run", "recipe.yaml", "--build-environments").returncode == 0
    assert bench.luthier("env", "rm", "--stale").returncode == 0
    assert len(bench.listed()) == 1


def test_another_interpreter_is_noticed(bench: Bench) -> None:
    assert bench.luthier("env", "build", "acme-stamp").returncode == 0
    (manifest,) = bench.cache.glob("environments/*/environment.json")
    manifest.write_text(manifest.read_text().replace('"version": "3.', '"version": "3.0.'))
    refused = bench.luthier("run", "recipe.yaml")
    assert refused.returncode == 1
    assert "version was '3.0." in refused.stderr
    assert bench.luthier("run", "recipe.yaml", "--build-environments").returncode == 0


def test_a_file_that_was_edited_is_found_and_not_shared_in_silence(bench: Bench) -> None:
    assert bench.luthier("env", "build", "acme-stamp").returncode == 0
    assert bench.luthier("env", "check").returncode == 0
    edited = next(path for path in bench.cache.glob("environments/*/lib/**/acme_library.py"))
    edited.chmod(0o644)
    edited.write_text("VERSION = 'mine'\n")
    checked = bench.luthier("env", "check", "acme-stamp")
    assert checked.returncode == 1
    assert "acme_library.py (acme-library) was edited" in checked.stdout
    assert bench.luthier("env", "build", "acme-stamp", "--rebuild").returncode == 0
    assert bench.luthier("env", "check").returncode == 0


def test_an_edit_of_a_linked_file_is_told_from_whichever_environment_it_was_made(bench: Bench) -> None:
    bench.share()
    assert bench.luthier("env", "build", "acme-stamp").returncode == 0
    here = bench.main / "acme_shared.py"
    there = next(bench.cache.glob("environments/*/lib/**/acme_shared.py"))
    assert here.samefile(there)
    text = here.read_text()
    for edited in (here, there):
        edited.write_text("X = 'mine'\n")
        checked = bench.luthier("env", "check")
        assert checked.returncode == 1
        assert "acme_shared.py (acme-shared) was edited, in the main environment too" in checked.stdout
        assert "pip install --force-reinstall --no-deps acme-shared==1.0" in checked.stdout
        edited.write_text(text)
        assert bench.luthier("env", "check").returncode == 0
    there.unlink()  # as an editor does that saves beside and renames: the link ends
    there.write_text("X = 'mine'\n")
    checked = bench.luthier("env", "check")
    assert checked.returncode == 1
    assert "acme_shared.py (acme-shared) was edited\n" in checked.stdout
    assert here.read_text() == text


def discard(site: Path, *patterns: str) -> None:
    for path in [path for pattern in patterns for path in site.glob(pattern)]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def put(site: Path, files: dict[str, str], *gone: str) -> None:
    """Lay down new files in place of others and of what is gone; what they replace may be a link."""
    discard(site, *files, *gone)
    lay_down(files, site)


EDITED = {"acme_library.py": "VERSION = 'mine'\n"}
OTHER = distribution("acme-other", "1.0", {"acme_other/data.txt": "text"}, entry="other = acme_other")
SPOILED: dict[str, tuple[Callable[[Path], None], str]] = {
    "own distribution removed": (lambda site: discard(site, "acme_library*"), "acme-library 1.0 is gone"),
    "linked distribution removed": (lambda site: discard(site, "pluggy", "pluggy-*"), "pluggy {pluggy} is gone"),
    "another version": (
        lambda site: put(site, library("1.1"), "acme_library-*"),
        "acme-library 1.0 is 1.1 now",
    ),
    "RECORD deleted and file edited": (
        lambda site: put(site, EDITED, "acme_library-*/RECORD"),
        "acme-library 1.0 has another RECORD than it was built with, or none",
    ),
    "RECORD and file edited": (
        lambda site: put(site, distribution("acme-library", "1.0", EDITED)),
        "acme-library 1.0 has another RECORD than it was built with, or none",
    ),
    "file removed": (lambda site: discard(site, "acme_library.py"), "acme_library.py (acme-library) is gone"),
    "module added": (lambda site: put(site, {"sitecustomize.py": "X = 1\n"}), "sitecustomize.py is in no RECORD"),
    "module added to a package": (
        lambda site: put(site, {"polars/acme.py": "X = 1\n"}),
        "polars/acme.py is in no RECORD",
    ),
    "package added": (lambda site: put(site, {"acme/x/y.py": "", "acme/z.py": ""}), "acme is in no RECORD"),
    "path file added": (lambda site: put(site, {"acme.pth": "import sys\n"}), "acme.pth is in no RECORD"),
    "distribution added": (lambda site: put(site, OTHER), "acme-other 1.0 was added"),
}


def copied(built: Bench, cache: Path) -> Path:
    """A copy of the built environment, of hard links, in another cache; its site directory."""
    shutil.copytree(built.cache, cache, symlinks=True, copy_function=os.link)
    return next(cache.glob("environments/*/lib/**/acme_library.py")).parent


@pytest.mark.parametrize("how", SPOILED)
def test_an_environment_that_was_tampered_with_is_not_sound(built: Bench, tmp_path: Path, how: str) -> None:
    spoil, expected = SPOILED[how]
    spoil(copied(built, tmp_path / "cache"))
    checked = built.luthier("env", "check", "acme-stamp", LUTHIER_CACHE=str(tmp_path / "cache"))
    assert checked.returncode == 1, checked.stderr
    assert f"  {expected.format(pluggy=importlib.metadata.version('pluggy'))}\n" in checked.stdout
    assert "luthier env build acme-stamp --rebuild" in checked.stdout


def test_what_python_and_its_libraries_leave_behind_is_no_damage(built: Bench, tmp_path: Path) -> None:
    left = {"polars/__pycache__/gone.py": "", "__pycache__/gone.pyc": "", "polars/downloaded.json": "{}", "x/y.txt": ""}
    put(copied(built, tmp_path / "cache"), left)
    checked = built.luthier("env", "check", LUTHIER_CACHE=str(tmp_path / "cache"))
    assert checked.returncode == 0, checked.stdout


def without(manifest: dict[str, object], name: str) -> dict[str, object]:
    return {key: value for key, value in manifest.items() if key != name}


DAMAGED: dict[str, Callable[[dict[str, object]], object]] = {
    "a list": lambda _: [],
    "null": lambda _: None,
    "text": lambda _: "",
    "no `plugin`": lambda whole: without(whole, "plugin"),
    "no `linked`": lambda whole: without(whole, "linked"),
    "no `version`": lambda whole: without(whole, "version"),
    "a key more": lambda whole: whole | {"more": 1},
    "`plugin` a number": lambda whole: whole | {"plugin": 1},
    "`interpreter` null": lambda whole: whole | {"interpreter": None},
    "`declared` of numbers": lambda whole: whole | {"declared": [1]},
    "`linked` a list": lambda whole: whole | {"linked": ["polars"]},
    "`installed` too short": lambda whole: whole | {"installed": {"acme-library": ["1.0"]}},
    "`own_bytes` text": lambda whole: whole | {"own_bytes": "many"},
    "`created` null": lambda whole: whole | {"created": None},
}


@pytest.mark.parametrize("how", DAMAGED)
def test_a_damaged_manifest_counts_as_not_built(
    built: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    (intact,) = built.cache.glob("environments/*/environment.json")
    manifest = tmp_path / "environments" / intact.parent.name / "environment.json"
    manifest.parent.mkdir(parents=True)
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path))
    manifest.write_text(intact.read_text())
    assert [each.manifest is None for each in environments.environments()] == [False]
    manifest.write_text(json.dumps(DAMAGED[how](json.loads(intact.read_text()))))
    with pytest.raises(InputError, match="acme-stamp runs in an environment of its own, which is not built") as refused:
        environments.require("acme-stamp")
    assert refused.value.remedy == "luthier env build acme-stamp"
    (damaged,) = environments.environments()
    assert environments.staleness(damaged) == ["its building did not end, or its environment.json is damaged"]
    assert damage(damaged) == []


@pytest.mark.parametrize("text", ["[]", '{"version": 1}'])
def test_commands_outlive_a_damaged_manifest(built: Bench, tmp_path: Path, text: str) -> None:
    manifest = tmp_path / "environments" / "acme-stamp-0123456789ab" / "environment.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(text)
    for command in (["run", "recipe.yaml"], ["env", "check"], ["env", "check", "acme-stamp"]):
        refused = built.luthier(*command, LUTHIER_CACHE=str(tmp_path))
        assert refused.returncode == 1, refused.stderr
        assert "luthier env build acme-stamp" in refused.stdout + refused.stderr
        assert "Traceback" not in refused.stderr


def test_only_the_named_plugins_environments_are_removed(built: Bench, tmp_path: Path) -> None:
    unfinished = tmp_path / "environments" / "acme-stamp-0123456789ab"
    unfinished.mkdir(parents=True)
    assert "nothing to remove" in built.luthier("env", "rm", "acme", LUTHIER_CACHE=str(tmp_path)).stdout
    assert unfinished.exists()
    assert built.luthier("env", "rm", "acme-stamp", LUTHIER_CACHE=str(tmp_path)).returncode == 0
    assert not unfinished.exists()


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize(
    "moment",
    [pytest.param("linking", marks=pytest.mark.slow), "installing", pytest.param("checking", marks=pytest.mark.slow)],
)
def test_a_build_that_is_killed_is_never_used(bench: Bench, moment: str) -> None:
    process = bench.start("env", "build", "acme-stamp", PYTHONUNBUFFERED="1")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(moment):
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    refused = bench.luthier("run", "recipe.yaml")
    assert refused.returncode == 1
    assert "is not built" in refused.stderr
    done = bench.luthier("env", "build", "acme-stamp")
    assert done.returncode == 0, done.stderr
    assert bench.luthier("run", "recipe.yaml").returncode == 0
    assert [each["problems"] for each in bench.listed()] == [[]]


def test_two_builds_at_once_are_one(bench: Bench) -> None:
    both = [bench.start("env", "build", "acme-stamp") for _ in range(2)]
    outputs = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert sum("built already" in out for out, _ in outputs) == 1
    assert [each["problems"] for each in bench.listed()] == [[]]


def test_offline_with_a_directory_of_wheels(bench: Bench) -> None:
    nothing = {"PIP_FIND_LINKS": "", "PIP_NO_INDEX": "", "PIP_INDEX_URL": "http://127.0.0.1:9/simple"}
    refused = bench.luthier("env", "build", "acme-stamp", "--no-index", **nothing)
    assert refused.returncode == 1
    assert "acme-library" in refused.stderr
    assert "Traceback" not in refused.stderr
    done = bench.luthier("env", "build", "acme-stamp", "--no-index", "--find-links", str(bench.wheels), **nothing)
    assert done.returncode == 0, done.stderr


def test_a_plugin_that_does_not_load_there_says_why(bench: Bench) -> None:
    with zipfile.ZipFile(bench.wheels / "acme_library-1.0-py3-none-any.whl", "w") as wheel:
        for path, text in library("1.0", "raise ImportError('built for another machine')\n").items():
            wheel.writestr(path, text)
    failed = bench.luthier("env", "build", "acme-stamp")
    assert failed.returncode == 1
    assert "built for another machine" in failed.stderr
    assert "is not built" in bench.luthier("run", "recipe.yaml").stderr


def test_versions_that_no_index_has_are_the_main_environments(bench: Bench) -> None:
    lay_down(distribution("acme-wheel", "1.0+cpu", {"acme_wheel.py": "Y = 1\n"}), bench.main)
    metadata = ("Requires-Dist: luthier", "Requires-Dist: acme-wheel>=1", "Provides-Extra: environment")
    extra = 'Requires-Dist: acme-library<2 ; extra == "environment"'
    lay_down(
        distribution("acme-stamp", "0.1", {"acme_stamp.py": PLUGIN}, *metadata, extra, entry="stamp = acme_stamp"),
        bench.main,
    )
    assert bench.luthier("env", "build", "acme-stamp").returncode == 0
    (environment,) = bench.listed()
    assert environment["linked"]["acme-wheel"] == "1.0+cpu"  # type: ignore[index]


def test_a_plugin_that_is_not_installed(bench: Bench) -> None:
    refused = bench.luthier("env", "build", "acme-stomp")
    assert refused.returncode == 1
    assert "pip install acme-stomp" in refused.stderr


def test_any_plugin_can_have_one(bench: Bench) -> None:
    lay_down(
        distribution(
            "acme-plain", "0.1", {"acme_plain.py": PLUGIN}, "Requires-Dist: luthier", entry="stamp = acme_plain"
        ),
        bench.main,
    )
    for path in bench.main.glob("acme_stamp*"):
        if path.is_file():
            path.unlink()
        else:
            for file in path.iterdir():
                file.unlink()
            path.rmdir()
    (bench.project / "recipe.yaml").write_text(RECIPE + "    environment: own\n")
    refused = bench.luthier("run", "recipe.yaml")
    assert "luthier env build acme-plain" in refused.stderr
    assert bench.luthier("env", "build", "acme-plain").returncode == 0
    failed = bench.luthier("run", "recipe.yaml")
    assert failed.returncode == 3
    assert "acme_library" in failed.stderr  # which it does not require, so it is not there
