"""`luthier generate`: ask a model."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from luthier.cli._dispatch import Command
from luthier.cli._options import local_files, store_here
from luthier.cli._output import print_json
from luthier.errors import InputError
from luthier.options import (
    DeviceOption,
    HomeOption,
    PluginOption,
    RuntimeOption,
    SettingsOption,
    runtime_parameters,
)

EXAMPLES = """
Examples:

\b
  luthier generate latest "Summarize in one line: …"
  luthier generate path/to/model --max-new-tokens 64 "first prompt" "second prompt"
  luthier generate latest --set adapter=none "Summarize in one line: …"
  luthier generate latest --temperature 0.8 --top-p 0.95 --seed 7 "Tell me of luthiers."
  cat document.txt | luthier generate latest
  luthier generate champion:docstring-summaries "Summarize in one line: …"
"""


def add_to(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(cls=Command, epilog=EXAMPLES)(generate)


def generate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|RUN",
            help="A model's directory, GGUF file or location, a run (its id or `latest`), RUN:STEP, or `champion`.",
        ),
    ],
    prompts: Annotated[
        list[str] | None, typer.Argument(metavar="[PROMPT]...", help="Without one, the prompt is read from stdin.")
    ] = None,
    *,
    runtime: RuntimeOption = None,
    settings: SettingsOption = [],  # noqa: B006 - typer copies it
    max_new_tokens: Annotated[int, typer.Option(min=1, metavar="N", help="Stop after so many tokens.")] = 128,
    temperature: Annotated[
        float, typer.Option(min=0.0, metavar="T", help="Draw tokens by their probabilities; 0 takes the most probable.")
    ] = 0.0,
    top_k: Annotated[
        int, typer.Option(min=0, metavar="K", help="Draw among the K most probable tokens; 0 for all.")
    ] = 0,
    top_p: Annotated[
        float, typer.Option(metavar="P", help="Draw among the most probable tokens that reach P together.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of the draws.")] = 0,
    device: DeviceOption = "auto",
    plugins: PluginOption = [],  # noqa: B006
    home: HomeOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print prompts and completions as JSON.")] = False,
) -> None:
    """Print a model's completion of each prompt: greedy, or drawn by a seed, so the same each time."""
    asked = prompts or [_prompt_from_stdin()]
    from luthier.adhoc import find_model
    from luthier.adhoc import generate as complete
    from luthier.streaming import Sampling

    if (top_k or top_p != 1 or seed) and not temperature:
        raise InputError("--top-k, --top-p and --seed are for draws", "Give --temperature too: 0.8, for example.")
    sampling = Sampling(temperature, top_k, top_p, seed)
    artifact = find_model(model, store_here(home))
    completions = complete(
        artifact,
        asked,
        runtime=runtime,
        parameters=runtime_parameters(settings),
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        local=local_files(plugins),
        device=device,
    )
    if as_json:
        print_json(
            [
                {"prompt": prompt, "completion": completion}
                for prompt, completion in zip(asked, completions, strict=True)
            ]
        )
        return
    for number, completion in enumerate(completions):
        if len(asked) > 1:
            typer.echo("\n" if number else "", nl=False)
            typer.secho(f"> {_first_line(asked[number])}", bold=True)
        typer.echo(completion)


def _prompt_from_stdin() -> str:
    if sys.stdin.isatty():
        typer.echo("Type the prompt, then Ctrl-D:", err=True)
    prompt = sys.stdin.read().rstrip("\n")
    if not prompt.strip():
        raise InputError("there is no prompt", 'Give one: luthier generate MODEL "…", or pipe it in.')
    return prompt


def _first_line(prompt: str) -> str:
    first, _, rest = prompt.partition("\n")
    return f"{first} …" if rest else first
