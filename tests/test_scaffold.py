"""`luthier plugins new`: for every stage a distribution that is tidy, listed, and passes its own tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from luthier.cli import app
from luthier.core_stages import STAGES
from luthier.errors import InputError
from luthier.plugins import load_plugins
from luthier.scaffold import Naming, find_stage, has_template, write
from luthier.stages import PluginStage

NAMES = [stage.label for stage in STAGES if has_template(stage)]
HEAVY = {"architecture", "tune", "export", "quantize", "runtime"}


@pytest.fixture
def cli(tmp_path, monkeypatch):
    """Call `luthier plugins new ARGUMENTS…` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, ["plugins", "new", *arguments])


def python(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LUTHIER_CACHE": str(Path("cache").absolute()), **variables}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)


def path_of(project: Path) -> str:
    """The project as if it were installed: its package and its metadata, to go on PYTHONPATH."""
    settings = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    inside = project.parent / "site" / f"{settings['name'].replace('-', '_')}-{settings['version']}.dist-info"
    inside.mkdir(parents=True)
    lines = [f"Requires-Dist: {requirement}" for requirement in settings["dependencies"]]
    head = ["Metadata-Version: 2.1", f"Name: {settings['name']}", f"Version: {settings['version']}", *lines]
    (inside / "METADATA").write_text("\n".join(head) + "\n")
    entries = [f"{name} = {value}" for name, value in settings["entry-points"]["luthier"].items()]
    (inside / "entry_points.txt").write_text("\n".join(["[luthier]", *entries]) + "\n")
    return os.pathsep.join(map(str, (project.absolute() / "src", inside.parent)))


@pytest.mark.parametrize("stage", NAMES)
def test_a_new_plugin_is_tidy_and_listed(cli, tmp_path, stage):
    made = cli("acme-thing", "--stage", stage)
    assert made.exit_code == 0, made.stderr
    assert "next: cd acme-thing, then pip install --group dev --editable ., pytest" in made.stdout
    project = tmp_path / "acme-thing"
    assert {path.name for path in project.iterdir()} >= {"pyproject.toml", "README.md", "src", "tests", ".github"}
    workflow = YAML(typ="safe").load((project / ".github" / "workflows" / "test.yml").read_text())
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    code = [str(path) for path in project.rglob("*.py")]
    for check in (["check"], ["format", "--check"]):
        done = python("-m", "ruff", *check, "--no-cache", str(project))
        assert done.returncode == 0, done.stdout
    assert python("-m", "py_compile", *code).returncode == 0
    listed = python(
        "-m", "luthier.cli", "plugins", "list", "--json", PYTHONPATH=path_of(project), LUTHIER_PLUGINS="acme-thing"
    )
    found = json.loads(listed.stdout)
    assert found["broken"] == []
    (component,) = found["components"]
    assert (component["stage"], component["name"]) == (stage, "acme-thing")
    assert component["distribution"] == "luthier-acme-thing"
    assert f"{stage}: acme-thing" in (project / "README.md").read_text() or stage == "runtime"


@pytest.mark.parametrize("stage", [name for name in NAMES if name not in HEAVY])
def test_a_new_plugin_passes_the_tests_of_what_it_does(cli, tmp_path, stage):
    # The cleaner's conformance test runs with the tutorial.
    pass_its_tests(cli, tmp_path, stage, "-k", "not conformance")


@pytest.mark.slow
@pytest.mark.parametrize("stage", NAMES)
def test_a_new_plugin_passes_all_its_tests(cli, tmp_path, stage):
    pass_its_tests(cli, tmp_path, stage)


def pass_its_tests(cli, directory: Path, stage: str, *options: str) -> None:
    assert cli("acme", "--stage", stage).exit_code == 0
    project = directory / "acme"
    tests = ("-m", "pytest", "-q", "-p", "no:cacheprovider", *options, str(project))
    done = python(*tests, PYTHONPATH=path_of(project))
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


@pytest.mark.parametrize("stage", NAMES)
def test_the_one_file_form_is_listed_without_any_command(cli, tmp_path, stage, monkeypatch):
    made = cli("acme", "--stage", stage, "--single-file")
    assert made.stdout.splitlines()[0] == f"wrote {Path('plugins.d/acme.py')}"
    assert [path.name for path in tmp_path.rglob("*.py")] == ["acme.py"]
    monkeypatch.setenv("LUTHIER_PLUGINS", "acme")
    found = json.loads(CliRunner().invoke(app, ["plugins", "list", "--json"]).stdout)
    assert [(each["stage"], each["name"], each["origin"]) for each in found["components"]] == [
        (stage, "acme", "local file")
    ]


def test_nothing_is_overwritten(cli, tmp_path):
    for options in ([], ["--single-file"]):
        assert cli("acme", "--stage", "clean", *options).exit_code == 0
        for path in tmp_path.rglob("*.py"):
            path.write_text("mine = 1\n")
        again = cli("acme", "--stage", "clean", *options)
        assert again.exit_code == 1
        assert "exists already" in again.stderr or "broken" in again.stderr
        assert all(path.read_text() == "mine = 1\n" for path in tmp_path.rglob("*.py"))


def test_a_name_that_another_plugin_has_is_refused(cli, tmp_path, monkeypatch):
    assert cli("acme", "--stage", "clean", "--single-file").exit_code == 0
    taken = cli("luthier-acme", "--stage", "clean")
    assert taken.exit_code == 1
    assert "a plugin of the name 'acme'" in taken.stderr
    assert not (tmp_path / "luthier-acme").exists()


@pytest.mark.parametrize("name", ["clean", "Cleaner", "cleaners", "luthier_cleaners"])
def test_a_stage_goes_by_several_names(name):
    assert find_stage(name).name == "clean"


def test_every_stage_is_found_by_its_names():
    assert find_stage("bias-filter").name == find_stage("bias_filters").name == "bias"
    assert find_stage("runtime").hook == find_stage("runtimes").hook == "luthier_runtimes"
    assert find_stage("validator").name == "validate"
    with pytest.raises(InputError) as caught:
        find_stage("claener")
    assert caught.value.remedy == "did you mean 'cleaner'?"


@pytest.mark.parametrize("name", ["9lives", "a b", "", "../up", "class", "list", "luthier-", "component"])
def test_a_name_that_python_or_pip_cannot_use_is_refused(name):
    with pytest.raises(InputError):
        Naming.of(name)


@pytest.mark.parametrize("name", ["null", "True", "false", "yes", "no", "on", "off", "y", "n", "luthier-null"])
def test_a_name_that_yaml_reads_as_something_else_is_refused(name):
    with pytest.raises(InputError):
        Naming.of(name)


@pytest.mark.parametrize(
    ("stage", "name"),
    [
        ("clean", "frame"),
        ("clean", "kept"),
        ("clean", "letters"),
        ("format", "rows"),
        ("format", "make-context"),
        ("tune", "tiny-model"),
        ("validate", "test"),
        ("clean", "test-set"),
    ],
)
def test_a_name_that_the_new_files_or_pytest_use_is_refused(cli, tmp_path, stage, name):
    refused = cli(name, "--stage", stage)
    assert refused.exit_code == 1
    assert "Choose another name" in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_only_other_stages_use_is_fine(cli):
    assert cli("rows", "--stage", "clean").exit_code == 0


ADDED = """
from luthier import Stage, hookimpl, hookspec

@hookspec
def luthier_augmenters():
    'Give the augmenters.'
@hookspec
def luthier_drawers():
    'Give the drawers.'

@hookimpl
def luthier_stages():
    return [
        Stage("augment", "luthier_augmenters", "dataset", "Augmenters", {inputs}),
        Stage("draw", "luthier_drawers", "model", "Drawers", optional=("ctx",)),
    ]
"""


def adding(directory: Path, inputs: str) -> str:
    """Lay down acme-stages, a distribution that adds stages; gives what to put on PYTHONPATH."""
    project = directory / "stages" / "acme-stages"
    (project / "src").mkdir(parents=True)
    (project / "src" / "acme_stages.py").write_text(ADDED.format(inputs=inputs))
    (project / "pyproject.toml").write_text(
        '[project]\nname = "acme-stages"\nversion = "1.2"\ndependencies = ["luthier"]\n'
        '[project.entry-points.luthier]\nstages = "acme_stages"\n'
    )
    return path_of(project)


@pytest.fixture
def added(tmp_path, monkeypatch):
    """Install a distribution that adds stages, whose components ask for `inputs`; gives its stages."""

    def install(inputs: str = 'one_of=("frame", "data"), optional=("ctx",)') -> tuple[PluginStage, ...]:
        paths = adding(tmp_path, inputs)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (paths, os.environ.get("PYTHONPATH")))))
        for path in paths.split(os.pathsep):
            monkeypatch.syspath_prepend(path)
        monkeypatch.delitem(sys.modules, "acme_stages", raising=False)
        return load_plugins(environ={"LUTHIER_PLUGINS": "stages"}).added_stages

    return install


@pytest.mark.parametrize(
    "inputs",
    [
        'one_of=("frame", "data"), optional=("ctx",)',
        pytest.param('needs=("data",), optional=("ctx",)', marks=pytest.mark.slow),
    ],
    ids=["frame", "data"],
)
def test_a_plugin_for_a_stage_that_a_plugin_adds_passes_its_tests(cli, tmp_path, added, inputs):
    added(inputs)
    made = cli("acme", "--stage", "augmenter")
    assert made.exit_code == 0, made.stderr
    project = tmp_path / "acme"
    assert '"acme-stages>=1.2",' in (project / "pyproject.toml").read_text()
    assert "- augment: acme" in (project / "README.md").read_text()
    for check in (["check"], ["format", "--check"]):
        done = python("-m", "ruff", *check, "--no-cache", str(project))
        assert done.returncode == 0, done.stdout
    paths = os.pathsep.join((path_of(project), os.environ["PYTHONPATH"]))
    done = python("-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", str(project), PYTHONPATH=paths)
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout


def test_a_stage_that_a_plugin_adds_and_that_has_no_template_says_so(tmp_path, added):
    stages = added()
    stage = find_stage("draw", [each.stage for each in stages])
    with pytest.raises(InputError) as caught:
        write(Naming.of("acme"), stage, tmp_path, added=stages)
    assert (
        caught.value.message
        == "there is no template for the stage 'draw', which acme-stages 1.2 (plugin 'stages') adds"
    )
    assert "luthier_drawers" in caught.value.remedy
    assert not (tmp_path / "acme").exists()


def test_a_distribution_cannot_be_written_for_a_stage_of_a_local_file(tmp_path):
    (tmp_path / "adds.py").write_text(ADDED.format(inputs='one_of=("frame", "data"), optional=("ctx",)'))
    stages = load_plugins(local=[tmp_path / "adds.py"], environ={"LUTHIER_PLUGINS": "adds"}).added_stages
    stage = find_stage("augment", [each.stage for each in stages])
    with pytest.raises(InputError, match="no distribution can require"):
        write(Naming.of("acme"), stage, tmp_path, added=stages)
    (path,) = write(Naming.of("acme"), stage, tmp_path, single_file=True, added=stages)
    loaded = load_plugins(local=[tmp_path / "adds.py", path], environ={"LUTHIER_PLUGINS": "adds,acme"})
    assert [str(component) for component in loaded.components] == ["augment:acme"]


def test_a_name_with_the_prefix_is_the_same_plugin():
    with_prefix, without = Naming.of("luthier-My_Thing"), Naming.of("my-thing")
    assert (with_prefix.plugin, with_prefix.package) == (without.plugin, "luthier_my_thing")
    assert with_prefix.distribution == without.distribution == "luthier-my-thing"
    assert with_prefix.directory == "luthier-My_Thing"
