"""Discovery, loading one by one, quarantine and blocking, with real files and real `.dist-info` folders."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from luthier.discovery import plugin_files
from luthier.plugins import FIRST_PARTY, Registry, UnknownComponent, load_plugins

GOOD = '''
from luthier import hookimpl

def {name}(frame, *, limit: int = 3):
    """Keep short documents."""
    return frame

@hookimpl
def luthier_cleaners():
    return [{name}]
'''


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text), encoding="utf-8")
    return path


def cleaner(name: str) -> str:
    return GOOD.format(name=name)


Load = Callable[..., Registry]
Install = Callable[..., None]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load local plugins, given as `name=source`, and no installed ones."""

    def call(environ: dict[str, str] | None = None, **sources: str) -> Registry:
        files = [write(tmp_path / "local" / f"{name}.py", source) for name, source in sources.items()]
        names = {"LUTHIER_PLUGINS": ",".join(sources)}
        return load_plugins(local=files, environ=environ or names)

    return call


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a distribution: its module and its metadata, as files on the path."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def call(
        distribution: str,
        entry: str,
        module: str,
        source: str | None,
        version: str = "1.0",
        requires: str = "",
        url: dict[str, object] | None = None,
    ) -> None:
        info = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        write(info / "METADATA", f"{metadata}Requires-Dist: {requires}\n" if requires else metadata)
        if url:
            write(info / "direct_url.json", json.dumps(url))
        write(info / "entry_points.txt", f"[luthier]\n{entry} = {module}\n")
        if source is not None:
            write(site / f"{module}.py", source)
            monkeypatch.delitem(sys.modules, module, raising=False)

    return call


def only(*names: str) -> dict[str, str]:
    return {"LUTHIER_PLUGINS": ",".join(names)}


def error_of(registry: Registry, name: str) -> str:
    return next(broken.error for broken in registry.broken if broken.name == name)


def test_an_installed_plugin_gives_its_components(install: Install) -> None:
    install("acme-shout", "shout", "acme_shout_one", cleaner("shout"), "2.5")
    registry = load_plugins(environ=only("shout"))
    component = registry.find("clean", "shout")
    assert (component.distribution, component.version, component.plugin) == ("acme-shout", "2.5", "shout")
    (info,) = registry.plugins
    assert (info.origin, info.module) == ("entry point", "acme_shout_one")
    assert info.path is not None
    assert info.path.name == "acme_shout_one.py"
    assert registry.broken == ()


def test_a_local_file_gives_its_components_and_leaves_nothing_behind(tmp_path: Path) -> None:
    file = write(tmp_path / "plugins.d" / "shout.py", cleaner("shout"))
    write(tmp_path / "plugins.d" / "_helper.py", "1 / 0")
    path_before = list(sys.path)
    registry = load_plugins(local=plugin_files(tmp_path), environ=only("shout"))
    assert registry.find("clean", "shout").distribution == str(file)
    assert registry.plugins[0].origin == "local file"
    assert sys.path == path_before
    assert sorted(path.name for path in file.parent.iterdir()) == ["_helper.py", "shout.py"]


def test_a_local_file_of_an_installed_plugins_name_is_left_out_alone(tmp_path: Path) -> None:
    file = write(tmp_path / "text.py", cleaner("shout"))
    registry = load_plugins(local=[file], environ=only("text"))
    assert [component.distribution for component in registry.of_stage("clean")][:1] == ["luthier-text"]
    (broken,) = registry.broken
    assert broken.distribution == str(file)
    assert "installed plugin of luthier-text" in broken.error
    assert "another name" in broken.remedy


def test_local_files_of_one_name_are_both_left_out(tmp_path: Path) -> None:
    files = [write(tmp_path / folder / "shout.py", cleaner(folder)) for folder in ("one", "two")]
    registry = load_plugins(local=files, environ=only("shout"))
    assert registry.components == ()
    (broken,) = registry.broken
    assert all(str(file) in broken.error for file in files)


def test_a_local_file_is_compiled_from_its_bytes_each_time(tmp_path: Path) -> None:
    file = write(tmp_path / "one.py", cleaner("first"))
    load_plugins(local=[file], environ=only("one"))
    stat = file.stat()
    write(file, cleaner("again"))  # the same size
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert [c.name for c in load_plugins(local=[file], environ=only("one")).components] == ["again"]


def test_the_same_local_file_twice_counts_once(tmp_path: Path) -> None:
    file = write(tmp_path / "one.py", cleaner("first"))
    registry = load_plugins(local=[file, tmp_path / "x" / ".." / "one.py"], environ=only("one"))
    assert [component.name for component in registry.components] == ["first"]


def test_a_local_plugin_may_hold_dataclasses(load: Load) -> None:
    registry = load(
        nested='''
        from __future__ import annotations
        import dataclasses
        from luthier import hookimpl

        @dataclasses.dataclass(frozen=True, kw_only=True)
        class Split:
            test: float = 0.1

        def cut(frame, *, split: Split = Split()):
            """Cut."""

        @hookimpl
        def luthier_cleaners():
            return [cut]
        '''
    )
    assert registry.find("clean", "cut").canonical({"split": {"test": 0.5}}) == {"split": {"test": 0.5}}


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("def broken(:", "SyntaxError: "),
        ("import a_library_that_is_not_there", "ModuleNotFoundError: No module named 'a_library_that_is_not_there'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise RuntimeError('first line\\nsecond line')", "RuntimeError: first line"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("class Odd(Exception):\n    def __str__(self): 1 / 0\nraise Odd", "Odd: (its message cannot be shown)"),
        ("def recurse(): recurse()\nrecurse()", "RecursionError: "),
        ("x = 1", "it has no hooks"),
        ("from luthier import hookimpl\n@hookimpl\ndef luthier_cleaners(): 1 / 0", "ZeroDivisionError: "),
        (
            "from luthier import hookimpl\n@hookimpl\ndef luthier_cleaners():\n    yield 3\n    1 / 0",
            "ZeroDivisionError",
        ),
        ("from luthier import hookimpl\n@hookimpl\ndef luthier_cleaners(): return 3", "luthier_cleaners returned 3"),
        ("from luthier import hookimpl\n@hookimpl\ndef luthier_cleaners(): return [3]", "is not a function"),
        ("from luthier import hookimpl\n@hookimpl\nasync def luthier_cleaners(): return []", "returned <coroutine"),
    ],
)
@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")
def test_a_broken_plugin_loses_only_its_own(load: Load, source: str, error: str) -> None:
    registry = load(bad=source, good=cleaner("fine"), worse=source)
    assert [component.name for component in registry.components] == ["fine"]
    assert [broken.name for broken in registry.broken] == ["bad", "worse"]
    broken = registry.broken[0]
    assert error in broken.error
    assert "\n" not in broken.error
    assert broken.distribution.endswith("bad.py")
    assert "Traceback" in broken.traceback
    assert "LUTHIER_DISABLE=bad" in broken.remedy


def test_a_hook_that_returns_nothing_says_what_to_return(load: Load) -> None:
    registry = load(bad="from luthier import hookimpl\n@hookimpl\ndef luthier_tuners(): return None\n")
    # pluggy leaves None out of its results, so this must not pass for a plugin without tuners.
    assert "luthier_tuners returned None" in error_of(registry, "bad")


def test_a_file_that_is_not_there_is_broken(tmp_path: Path) -> None:
    registry = load_plugins(local=[tmp_path / "gone.py"], environ=only("gone"))
    assert "FileNotFoundError" in error_of(registry, "gone")


def test_ctrl_c_passes_through(load: Load) -> None:
    # A shell has its background jobs ignore the signal, and the tests may be one.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            load(bad="import signal, time\nsignal.raise_signal(signal.SIGINT)\ntime.sleep(30)")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, inherited)


def test_a_plugin_that_raises_keyboard_interrupt_itself_is_broken(load: Load) -> None:
    registry = load(bad="raise KeyboardInterrupt", good=cleaner("fine"))
    assert error_of(registry, "bad") == "KeyboardInterrupt"
    assert [component.name for component in registry.components] == ["fine"]


def test_what_a_plugin_prints_goes_to_stderr(load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    load(chatty="print('hello')\n" + cleaner("fine"))
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "hello\n")


def test_all_misspelt_hooks_are_reported_and_none_of_the_plugin_is_used(load: Load) -> None:
    registry = load(
        bad=cleaner("fine")
        + """
@hookimpl
def luthier_cleaner(): return []
@hookimpl
def luthier_run_finish(run, event): pass
@hookimpl(specname="luthier_tuner")
def tuners(): return []
def luthier_source(): return []
"""
    )
    error = error_of(registry, "bad")
    for wrong, right in (
        ("'luthier_cleaner'", "'luthier_cleaners'"),
        ("'luthier_run_finish'", "'luthier_run_finished'"),
        ("'luthier_tuner'", "'luthier_tuners'"),
        ("'luthier_source' is not marked", "luthier_sources"),
    ):
        assert wrong in error
        assert right in error
    assert registry.components == ()
    assert registry.notify("luthier_run_finished", run=None, event=None) == []


def test_a_misspelt_hook_with_a_good_guess_is_not_taken_for_that_of_another_stage(load: Load) -> None:
    registry = load(
        near="from luthier import hookimpl\n@hookimpl\ndef luthier_cleaner(): return []\n",
        odd="from luthier import hookimpl\n@hookimpl\ndef luthier_xylophones(): return []\n",
        zero="1 / 0",
    )
    assert error_of(registry, "near") == "there is no hook 'luthier_cleaner'; did you mean 'luthier_cleaners'?"
    assert "if it is the hook of a stage that another plugin adds" in error_of(registry, "odd")
    assert error_of(registry, "odd").endswith(", zero)")


def test_a_hook_without_its_mark_is_reported(load: Load) -> None:
    registry = load(bad=GOOD.format(name="fine") + "\ndef luthier_tuners():\n    return []\n")
    assert "'luthier_tuners' is not marked as a hook; put @luthier.hookimpl above" in error_of(registry, "bad")


def test_a_hook_of_a_later_version_may_be_optional(load: Load) -> None:
    registry = load(new=cleaner("fine") + "\n@hookimpl(optionalhook=True)\ndef luthier_dreamers(): return []\n")
    assert registry.broken == ()


@pytest.mark.parametrize(
    ("signature", "error"),
    [
        ("luthier_run_finished(run, evnt)", "asks for 'evnt', which luthier_run_finished does not offer; did you mean"),
        ("luthier_run_finished(run, event=None)", "gives 'event' a default, so pluggy would never pass it"),
        ("luthier_run_finished(run, *, event)", "takes 'event', which hooks are never given"),
        ("luthier_run_finished(**everything)", "takes '**everything', which hooks are never given"),
        ("luthier_cleaners(frame)", "asks for 'frame', which luthier_cleaners does not offer; it may ask for nothing"),
    ],
)
def test_a_hooks_parameters_are_checked(load: Load, signature: str, error: str) -> None:
    registry = load(bad=f"from luthier import hookimpl\n@hookimpl\ndef {signature}:\n    return []\n")
    assert error in error_of(registry, "bad")


def test_a_lifecycle_hook_whose_body_would_never_run_is_refused(load: Load) -> None:
    for kind in ("def luthier_run_finished(run, event): yield", "async def luthier_run_finished(run, event): pass"):
        registry = load(bad=f"from luthier import hookimpl\n@hookimpl\n{kind}\n")
        assert "whose body would never run" in error_of(registry, "bad")


def test_wrappers_are_refused(load: Load) -> None:
    registry = load(
        bad="from luthier import hookimpl\n@hookimpl(wrapper=True)\ndef luthier_cleaners():\n    return (yield)"
    )
    assert "hook wrapper" in error_of(registry, "bad")


def test_every_wrong_component_of_a_plugin_is_reported(load: Load) -> None:
    registry = load(
        bad='''
        from luthier import hookimpl

        def one(frame, colour):
            """One."""

        def two(frame, *, size):
            """Two."""

        def three(frame):
            """Three."""

        @hookimpl
        def luthier_cleaners():
            return [one, two, three, three]
        '''
    )
    error = error_of(registry, "bad")
    assert "asks for 'colour', which this stage does not offer" in error
    assert "has a parameter 'size' without a type" in error
    assert "is a second clean:three" in error


def test_a_clash_names_both_distributions_and_neither_is_used(install: Install) -> None:
    install("acme-one", "one", "acme_clash_one", cleaner("shout"), "1.0")
    install("acme-two", "two", "acme_clash_two", cleaner("shout") + cleaner("other").partition("@")[0], "2.0")
    registry = load_plugins(environ=only("one", "two"))
    assert registry.components == ()
    assert error_of(registry, "clean:shout") == (
        "clean:shout is given by acme-one 1.0 (plugin 'one') and by acme-two 2.0 (plugin 'two')"
    )
    with pytest.raises(UnknownComponent, match=r"acme-one 1\.0 .* and by acme-two 2\.0"):
        registry.find("clean", "shout")
    assert load_plugins(environ=only("one")).find("clean", "shout").distribution == "acme-one"


def test_two_distributions_with_one_entry_point_name(install: Install) -> None:
    install("acme-a", "same", "acme_same_a", cleaner("a"))
    install("acme-b", "same", "acme_same_b", cleaner("b"))
    registry = load_plugins(environ=only("same"))
    (broken,) = registry.broken
    assert broken.distribution == "acme-a and acme-b"
    assert "given more than once, by acme-a and acme-b" in broken.error
    assert registry.components == ()


def test_a_damaged_distribution_does_not_take_the_others_along(install: Install, tmp_path: Path) -> None:
    install("acme-fine", "fine", "acme_fine", cleaner("fine"))
    install("acme-bad", "bad", "acme_bad", None)
    (tmp_path / "site" / "acme_bad-1.0.dist-info" / "entry_points.txt").write_bytes(b"[luthier]\nbad = \xff\xfe")
    registry = load_plugins(environ=only("fine", "acme-bad"))
    assert registry.find("clean", "fine")
    assert "its entry points cannot be read" in error_of(registry, "acme-bad")


def test_an_entry_point_whose_module_is_gone_names_the_pip_command(install: Install) -> None:
    install("acme-gone", "gone", "acme_gone", None)
    (broken,) = load_plugins(environ=only("gone")).broken
    command = "pip install --force-reinstall --no-deps acme-gone"
    assert broken.remedy == f"Its files are gone; install it again: {command}; or leave it out: LUTHIER_DISABLE=gone"


@pytest.mark.parametrize(
    ("requires", "remedy"),
    [
        ("acme-library-that-is-not-there", "Install what it needs: pip install acme-needy; or"),
        ("polars", "acme-needy imports no_such_library without requiring it, which its author must declare; "),
        ("", "until then: pip install no_such_library; or leave it out: LUTHIER_DISABLE=needy"),
        ('acme-none ; extra == "more"', "until then: pip install no_such_library; or"),
    ],
)
def test_a_missing_library_is_the_users_to_install_or_the_authors_to_declare(
    install: Install, requires: str, remedy: str
) -> None:
    install("acme-needy", "needy", "acme_needy", "import no_such_library.part", requires=requires)
    (broken,) = load_plugins(environ=only("needy")).broken
    assert remedy in broken.remedy


def test_what_an_installed_library_does_not_have_is_not_installed_again(install: Install) -> None:
    install("acme-needy", "needy", "acme_needy", "import json.no_such_part")
    (broken,) = load_plugins(environ=only("needy")).broken
    assert broken.remedy == "Upgrade it: pip install --upgrade acme-needy; or leave it out: LUTHIER_DISABLE=needy"


def test_a_mistake_is_mended_where_the_source_lies(install: Install, tmp_path: Path) -> None:
    wrong = "from luthier import hookimpl\n@hookimpl\ndef luthier_cleaner(): return []\n"
    directory = {"url": (tmp_path / "a b").as_uri()}
    install("acme-edit", "edit", "acme_edit", wrong, url={**directory, "dir_info": {"editable": True}})
    install("acme-copy", "copy", "acme_copy", wrong, url={**directory, "dir_info": {}})
    install("acme-index", "index", "acme_index", wrong)
    remedies = {each.name: each.remedy for each in load_plugins(environ=only("edit", "copy", "index")).broken}
    assert remedies["edit"].startswith(f"Mend {tmp_path / 'site' / 'acme_edit.py'}; or")
    assert remedies["copy"].startswith(f"Mend it in {tmp_path / 'a b'}, and install it again: ")
    assert remedies["index"].startswith("Upgrade it: pip install --upgrade acme-index; or")


def test_blocking(load: Load) -> None:
    sources = {"one": cleaner("first"), "two": cleaner("second")}
    names = {c.name for c in load({"LUTHIER_PLUGINS": " two , "}, **sources).components}
    assert names == {"second"}
    registry = load({"LUTHIER_PLUGINS": ""}, **sources)
    assert registry.components == ()
    assert {"one", "two"} <= set(registry.blocked)
    registry = load({"LUTHIER_PLUGINS": "one,two", "LUTHIER_DISABLE": "one"}, **sources)
    assert [c.name for c in registry.components] == ["second"]


def test_a_blocked_plugin_is_not_imported(load: Load, tmp_path: Path) -> None:
    mark = tmp_path / "imported"
    load({"LUTHIER_PLUGINS": ""}, bad=f"open({str(mark)!r}, 'w')")
    assert not mark.exists()


def test_a_plugin_that_is_asked_for_and_not_there_is_reported(load: Load) -> None:
    registry = load({"LUTHIER_PLUGINS": "shoot"}, shout=cleaner("shout"))
    assert "no such plugin is installed" in error_of(registry, "shoot")
    assert registry.broken[0].remedy == "did you mean 'shout'?"


def test_components_are_sorted_whatever_the_order_of_plugins(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{name}.py", cleaner(name)) for name in ("b", "c", "a")]
    for order in (files, files[::-1]):
        registry = load_plugins(local=order, environ=only("a", "b", "c"))
        assert [component.name for component in registry.components] == ["a", "b", "c"]
        assert [plugin.name for plugin in registry.plugins] == ["a", "b", "c"]


def test_finding(load: Load) -> None:
    registry = load(
        one=cleaner("near_duplicates")
        + '''
def near(model):
    """Load."""

@hookimpl
def luthier_runtimes():
    return [near]

@hookimpl
def luthier_bias_filters():
    return [near_duplicates]
'''
    )
    assert registry.find("clean", "near-duplicates").name == "near-duplicates"
    assert registry.find("runtime", "near") is registry.runtime("near")
    assert [str(c) for c in registry.named("near-duplicates")] == ["clean:near-duplicates", "bias:near-duplicates"]
    assert [str(c) for c in registry.named("bias:near-duplicates")] == ["bias:near-duplicates"]
    assert registry.named("nothing") == []
    assert [c.name for c in registry.of_stage("runtime")] == ["near"]
    with pytest.raises(UnknownComponent, match="did you mean 'near-duplicates'"):
        registry.find("clean", "near_duplicate")
    with pytest.raises(UnknownComponent, match="There is runtime:near"):
        registry.find("tune", "near")


def test_a_component_of_ours_that_is_not_installed_names_the_command() -> None:
    with pytest.raises(UnknownComponent, match="luthier-tune, which gives it, is not installed") as caught:
        Registry().find("tune", "lora")
    assert caught.value.remedy == "pip install luthier-tune"
    assert all(":" in name for names in FIRST_PARTY.values() for name in names)


def test_a_component_of_a_broken_or_blocked_plugin_says_so(install: Install) -> None:
    install("luthier-tune", "test-tune", "broken_tune", "import a_library_that_is_not_there")
    with pytest.raises(UnknownComponent, match="luthier-tune, which gives it, is broken: ModuleNotFoundError"):
        load_plugins(environ=only("test-tune")).find("tune", "lora")
    with pytest.raises(UnknownComponent, match="luthier-tune, which gives it, is blocked"):
        load_plugins(environ=only()).find("tune", "lora")


def test_an_unknown_component_mentions_what_is_broken(load: Load) -> None:
    with pytest.raises(UnknownComponent, match="Broken, so not loaded: bad"):
        load(bad="1 / 0").find("clean", "xylophone")


def test_the_hooks_of_a_plugin(load: Load) -> None:
    registry = load(shout=cleaner("shout"), bad="1 / 0")
    assert registry.hooks("shout") == ["luthier_cleaners"]
    assert registry.hooks("bad") == registry.hooks("nobody") == []


def test_each_plugin_is_notified_by_itself(load: Load) -> None:
    observer = """
    from luthier import hookimpl
    seen = []

    @hookimpl
    def luthier_run_finished(event):
        seen.append(event)
        {what}
    """
    registry = load(
        a=observer.format(what="raise ValueError('no')"),
        b=observer.format(what="raise SystemExit"),
        c=observer.format(what=""),
    )
    errors = registry.notify("luthier_run_finished", run=None, event="it failed")
    assert [(name, type(error)) for name, error in errors] == [("a", ValueError), ("b", SystemExit)]
    seen = [sys.modules[plugin.module].__dict__["seen"] for plugin in registry.plugins]
    assert seen == [["it failed"]] * 3


def test_importing_and_loading_is_light() -> None:
    code = (
        "import sys, json, luthier.plugins as p; p.load_plugins(environ={'LUTHIER_PLUGINS': ''});"
        "print(json.dumps(list(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    heavy = {"torch", "transformers", "onnxruntime", "polars", "pyarrow", "numpy", "pydantic", "ruamel.yaml", "rich"}
    assert heavy & set(json.loads(output)) == set()
