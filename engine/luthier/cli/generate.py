"""`luthier generate`: ask a model."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from luthier.cli._dispatch import Command
from luthier.cli._options import DeviceOption, HomeOption, PluginOption, local_files, store_here
from luthier.cli._output import print_json
from luthier.errors import InputError

EXAMPLES = """
Examples:

\b
  luthier generate latest "Summarize in one line: …"
  luthier generate path/to/model --max-new-tokens 64 "first prompt" "second prompt"
  luthier generate latest --set adapter=none "Summarize in one line: …"
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
    runtime: Annotated[
        str | None, typer.Option(metavar="NAME", help="What loads the model.  [default: the one for its kind]")
    ] = None,
    settings: Annotated[
        list[str],
        typer.Option("--set", metavar="KEY=VALUE", help="Set a parameter of the runtime. May be given several times."),
    ] = [],  # noqa: B006 - typer copies it
    max_new_tokens: Annotated[int, typer.Option(min=1, metavar="N", help="Stop after so many tokens.")] = 128,
    device: DeviceOption = "auto",
    plugins: PluginOption = [],  # noqa: B006 - typer copies it
    home: HomeOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print prompts and completions as JSON.")] = False,
) -> None:
    """Print a model's completion of each prompt (greedy, so the same each time)."""
    asked = prompts or [_prompt_from_stdin()]
    from luthier.adhoc import find_model
    from luthier.adhoc import generate as complete
    from luthier.substitution import parse_override

    artifact = find_model(model, store_here(home))
    completions = complete(
        artifact,
        asked,
        runtime=runtime,
        parameters=dict(map(parse_override, settings)),
        max_new_tokens=max_new_tokens,
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
