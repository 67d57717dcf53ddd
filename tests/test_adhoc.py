"""`luthier plugins run` on what users have: bad lines, late keys, numbers where texts should be."""

from __future__ import annotations

import json
import os
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner, Result

import luthier
from luthier import InputError, environments
from luthier.cli import app

Call = Callable[..., Result]
GOOD = ['{"text": "a cedar tree"}', '{"text": "the last document"}']


@pytest.fixture
def capitals(project: Path) -> Call:
    """Run the toy cleaner on a file, to `out.jsonl`."""

    def call(source: str = "data.jsonl", *options: str) -> Result:
        arguments = ["plugins", "run", "capitals", "--input", source, "--output", "out.jsonl", *options]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 3 or "Traceback" not in result.stderr
        return result

    return call


def write(*lines: str | bytes) -> None:
    Path("data.jsonl").write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines))


def rows() -> list[dict[str, object]]:
    return [json.loads(line) for line in Path("out.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        pytest.param('{"text": "cut of', "not JSON", id="truncated"),
        pytest.param(b'{"text": "caf\xe9"}', "not UTF-8", id="invalid byte"),
        pytest.param('{"text": "a \\ud800 b"}', "a lone surrogate", id="lone surrogate"),
        pytest.param('{"text": "a", "n": [{"k": "\\u0000"}]}', "a NUL character in 'k'", id="NUL in a nested value"),
        pytest.param('{"text": 5}', "'text' is int, not a string", id="number"),
        pytest.param('{"text": null}', "'text' is NoneType", id="null"),
        pytest.param('{"body": "x"}', "'text' is missing", id="no text"),
        pytest.param('{"text": " "}', "'text' is empty", id="blank"),
        pytest.param("[1]", "not an object", id="no object"),
        pytest.param('{"text": "x", "deep": ' + "[" * 500 + "]" * 500 + "}", "nested too deeply", id="deep"),
    ],
)
def test_a_bad_line_is_counted_and_kept_with_its_reason_and_its_neighbours_are_done(capitals, line, reason):
    write(GOOD[0], line, GOOD[1])
    result = capitals()
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[0] == "out.jsonl: 3 in, 2 kept, 1 changed, 1 quarantined"
    assert "out.jsonl.quarantine.jsonl" in result.stdout
    assert [row["text"] for row in rows()] == ["a CEDAR tree", "the last document"]
    (record,) = map(json.loads, Path("out.jsonl.quarantine.jsonl").read_text().splitlines())
    assert record["where"] == "data.jsonl:2"
    assert reason in record["reason"]


def test_what_the_file_and_the_component_set_aside_is_in_one_file_and_one_count(capitals, project):
    plugin = project / "plugins.d" / "toys.py"
    changed = 'def capitals(frame: pl.DataFrame, ctx: Context, *, word: str = "cedar") -> pl.DataFrame:'
    text = plugin.read_text().replace(
        'def capitals(frame: pl.DataFrame, *, word: str = "cedar") -> pl.DataFrame:', changed
    )
    body = '    """Write one word in capitals."""\n'
    aside = '    ctx.quarantine("a row", "no luck", row_id=frame["id"][0])\n    frame = frame[1:]\n'
    plugin.write_text(text.replace(body, body + aside))
    write(*GOOD, "{")
    counts = json.loads(capitals("data.jsonl", "--json").stdout)
    assert (counts["documents_in"], counts["kept"], counts["quarantined"]) == (3, 1, 2)
    kept = Path("out.jsonl.quarantine.jsonl").read_text().splitlines()
    assert [json.loads(line)["reason"].split(":")[0] for line in kept] == ["not JSON", "no luck"]


def test_every_key_of_the_file_is_a_column_whatever_line_it_is_first_on(capitals):
    lines = [json.dumps({"text": f"row {row}", "n": row}) for row in range(3000)]
    lines.append('{"text": "late", "n": 0.5, "late": true, "meta": {"tags": ["x"], "by": 1}, "mixed": 1}')
    lines.append('{"text": "later", "meta": {"tags": [], "when": "now"}, "mixed": "one", "huge": 99999999999999999999}')
    write(*lines)
    assert capitals().exit_code == 0
    first, late, later = (rows()[index] for index in (7, 3000, 3001))
    assert (first["n"], first["late"], first["meta"]) == (7.0, None, None)
    assert (late["n"], late["late"], late["mixed"]) == (0.5, True, "1")
    assert late["meta"] == {"tags": ["x"], "by": 1, "when": None}
    assert later["meta"] == {"tags": [], "by": None, "when": "now"}
    assert (later["mixed"], later["huge"]) == ("one", "99999999999999999999")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "data.jsonl has no rows that can be used"),
        (['{"text": 1}', '{"text": 2}'], "data.jsonl:1: 'text' is int, not a string"),
        (['{"body": "x"}'], "'text' is missing"),
        ([*GOOD, '{"text": "x", "id": 7}'], "2 rows have no 'id', and others do"),
        (['{"text": "x", "id": 7}', '{"text": "y", "id": 7}'], "two rows have the id '7'"),
        (['{"text": "x", "group": ["a"]}'], "the column 'group' is List(String)"),
    ],
)
def test_a_file_that_cannot_be_used_is_the_users_error(capitals, lines, message):
    write(*lines)
    result = capitals()
    assert result.exit_code == 1
    assert message in result.stderr


def test_rows_that_do_not_say_where_they_belong_take_the_file_and_themselves(capitals):
    write('{"text": "a", "source": "web", "group": 4}', '{"text": "b"}')
    assert capitals().exit_code == 0
    first, second = rows()
    assert (first["source"], first["group"]) == ("web", "4")
    assert (second["source"], second["group"]) == ("data.jsonl", second["id"])


def test_tables_are_held_to_the_same(capitals):
    pl.DataFrame({"text": [1, 2]}).write_parquet("numbers.parquet")
    result = capitals("numbers.parquet")
    assert result.exit_code == 1
    assert "the column 'text' is Int64, not of strings" in result.stderr
    Path("late.csv").write_text("text,n\n" + "1,1\n" * 2000 + '"a cedar",0.5\n"",2\n')
    result = capitals("late.csv")
    assert result.stdout.startswith("out.jsonl: 2,002 in, 2,001 kept, 1 changed, 1 quarantined\n"), result.stderr
    assert (rows()[0]["text"], rows()[-1]["n"]) == ("1", 0.5)
    (record,) = map(json.loads, Path("out.jsonl.quarantine.jsonl").read_text().splitlines())
    assert record["where"] == "late.csv, row 2002"


def test_a_component_that_breaks_the_contract_is_named(capitals, project):
    plugin = project / "plugins.d" / "toys.py"
    renamed = 'frame.with_columns(pl.lit("x").alias("id"), pl.col("text").str.replace_all('
    plugin.write_text(plugin.read_text().replace('frame.with_columns(pl.col("text").str.replace_all(', renamed))
    write(GOOD[0])
    result = capitals()
    assert result.exit_code == 3
    assert "gave rows of new ids: 'x'" in result.stderr
    assert "toys.py" in result.stderr


# --- an environment of its own ------------------------------------------------------------------------

WHERE = '''
from luthier import hookimpl

def where_frame(frame):
    """Write where it runs."""
    import sys
    import polars as pl
    return frame.with_columns(text=pl.lit(sys.prefix))

def where_data(data):
    """Write where it runs."""
    yield from map(where_frame, data.frames())

def where_model(model):
    """Say where it runs."""
    import sys

    class Runtime:
        def generate(self, prompts, **options):
            return [sys.prefix for _ in prompts]

    return Runtime()

@hookimpl
def luthier_cleaners():
    return [where_frame, where_data]

@hookimpl
def luthier_runtimes():
    return [where_model]
'''


@pytest.fixture
def apart(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install a plugin that declares an environment of its own, which is not built; gives its site directory."""
    site = project / "site"
    info = site / "acme_where-1.0.dist-info"
    info.mkdir(parents=True)
    extra = 'Provides-Extra: environment\nRequires-Dist: acme-library<2 ; extra == "environment"\n'
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: acme-where\nVersion: 1.0\n{extra}")
    (info / "entry_points.txt").write_text("[luthier]\nwhere = acme_where\n")
    (site / "acme_where.py").write_text(WHERE)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)
    monkeypatch.setenv("LUTHIER_PLUGINS", "where")
    monkeypatch.delitem(sys.modules, "acme_where", raising=False)
    environments.declares.cache_clear()
    write(*GOOD)
    (project / "model").mkdir()
    (project / "model" / "config.json").write_text("{}")
    return site


COMMANDS = (
    ("plugins", "run", "where-frame", "--input", "data.jsonl", "--output", "out.jsonl"),
    ("plugins", "run", "where-data", "--input", "data.jsonl", "--output", "out.jsonl"),
    ("generate", "model", "hello", "--runtime", "where-model"),
)


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: arguments[2])
def test_a_plugin_that_declares_an_environment_is_not_run_without_it(apart, arguments):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert "acme-where runs in an environment of its own, which is not built" in result.stderr
    assert "luthier env build acme-where" in result.stderr


def test_a_plugin_runs_in_the_environment_that_it_declares(apart, project, monkeypatch):
    own = project / "own"
    venv.create(own, with_pip=False, symlinks=os.name != "nt")
    lines = [each for each in sys.path if each and Path(each).is_dir() and Path(each).name != "lib-dynload"]
    lines = [each for each in lines if each not in (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))]
    lines.append(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})")
    (environments.site_of(own, "purelib") / "all.pth").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(environments, "require", lambda name: environments.Environment(own, None))
    for arguments in COMMANDS[:2]:
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.stderr
        assert {row["text"] for row in rows()} == {str(own)}
    assert CliRunner().invoke(app, COMMANDS[2]).stdout == f"{own}\n"


@pytest.mark.parametrize(
    ("config", "form"),
    [
        ("{}", "causal-lm"),
        ('{"is_encoder_decoder": true}', "seq2seq-lm"),
        ('{"architectures": ["LlamaForSequenceClassification"]}', "sequence-classifier"),
    ],
)
def test_the_form_of_a_models_directory_is_what_its_configuration_says(tmp_path, config, form):
    (tmp_path / "config.json").write_text(config)
    assert luthier.find_model(str(tmp_path)).form == form


@pytest.mark.parametrize(
    ("files", "form"),
    [
        ({"genai_config.json": "{}", "model.onnx": ""}, "genai"),
        ({"interface.json": '{"form": "encoder-decoder"}', "config.json": "{}", "encoder.onnx": ""}, "encoder-decoder"),
        ({"model.onnx": "", "config.json": "{}"}, "decoder"),
        ({"model.gguf": "", "tokenizer.json": "{}"}, "gguf"),
    ],
)
def test_the_form_of_an_exported_model_is_what_its_interface_says(tmp_path, files, form):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    found = luthier.find_model(str(tmp_path))
    assert (found.kind, found.form) == ("onnx", form)


def test_a_gguf_file_is_a_model_and_one_beside_a_configuration_is_not_looked_at(tmp_path):
    file = tmp_path / "any name.gguf"
    file.write_bytes(b"")
    found = luthier.find_model(str(file))
    assert (found.kind, found.form, found.path) == ("onnx", "gguf", file)
    (tmp_path / "config.json").write_text("{}")
    assert luthier.find_model(str(tmp_path)).form == "causal-lm"


def test_a_configuration_that_is_no_object_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("[")
    with pytest.raises(InputError, match="is no JSON object"):
        luthier.find_model(str(tmp_path))


LOUD = '''
from luthier import hookimpl

def loud(model, *, marks: int = 1):
    """Write exclamation marks."""
    class Runtime:
        def generate(self, prompts, **options):
            return [prompt + "!" * marks for prompt in prompts]

    return Runtime()

@hookimpl
def luthier_runtimes():
    return [loud]
'''


DRAWING = """
from luthier import Token, component, hookimpl

class Stream:
    prompt_tokens = 1

    def __init__(self, text):
        self._text = text

    def read(self):
        return 0

    def step(self):
        return Token(0, self._text, self._text, 0.0, end="stop")

    def close(self):
        pass

class Drawing:
    def generate(self, prompts, *, max_new_tokens=128, stop=()):
        return ["greedy" for prompt in prompts]

    def open(self, prompt, *, max_new_tokens=128, sampling=None, alternatives=0, schema=None, template=True):
        return Stream(f"{prompt} {sampling.temperature} {sampling.top_p} {sampling.seed}")

@component(streams=True)
def drawing(model):
    "Says how it would draw."
    return Drawing()

def silent(model):
    "Does not stream."
    return Drawing()

def carving(onnx):
    "Is for exported models."
    return Drawing()

@hookimpl
def luthier_runtimes():
    return [drawing, silent, carving]
"""


@pytest.mark.parametrize(
    ("runtime", "options", "code", "expected"),
    [
        ("drawing", [], 0, "greedy\n"),
        ("drawing", ["--temperature", "0.5", "--top-p", "0.9", "--seed", "7"], 0, "hello 0.5 0.9 7\n"),
        ("silent", ["--temperature", "0.5"], 1, "These do: drawing."),
        ("carving", [], 1, "the runtime carving does not load model of the form causal-lm"),
        ("drawing", ["--top-p", "0.9"], 1, "Give --temperature too"),
        ("drawing", ["--temperature", "1", "--top-p", "0"], 1, "top_p is 0.0"),
    ],
)
def test_generate_draws_where_the_runtime_streams(project, monkeypatch, runtime, options, code, expected):
    monkeypatch.setenv("LUTHIER_PLUGINS", "drawing")
    (project / "drawing.py").write_text(DRAWING)
    (project / "model").mkdir()
    (project / "model" / "config.json").write_text("{}")
    result = CliRunner().invoke(
        app, ["generate", "model", "hello", "--plugin", "drawing.py", "--runtime", runtime, *options]
    )
    assert (result.exit_code, expected in result.output) == (code, True), result.output


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ([], "hello!\n"),
        (["--set", "marks=3"], "hello!!!\n"),
        (["--set", "marks=many"], "runtime:loud: marks: "),
        (["--set", "mark=3"], "runtime:loud: mark: unknown key\n  did you mean 'marks'?"),
    ],
)
def test_generate_sets_the_runtimes_parameters(project, monkeypatch, settings, expected):
    monkeypatch.setenv("LUTHIER_PLUGINS", "loud")
    (project / "loud.py").write_text(LOUD)
    (project / "model").mkdir()
    (project / "model" / "config.json").write_text("{}")
    result = CliRunner().invoke(
        app, ["generate", "model", "hello", "--plugin", "loud.py", "--runtime", "loud", *settings]
    )
    assert result.exit_code == (0 if expected.startswith("hello") else 1)
    assert expected in result.output
