"""`luthier serve`. Light: what it needs is imported when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from luthier.options import (
    DeviceOption,
    HomeOption,
    PluginOption,
    RuntimeOption,
    SettingsOption,
    command_app,
    runtime_parameters,
)

EXAMPLES = """
Examples:

\b
  luthier serve latest
  luthier serve champion --port 8000
  luthier serve champion latest --token-file token.txt
  luthier serve latest --set adapter=none
  luthier serve latest --host 0.0.0.0 --allow-host models.example.org --token-file token.txt

Ctrl-C or SIGTERM ends it: what runs may go on for --drain seconds. Exit codes: 0 ended as told, 1 your input.
"""

app = command_app()


@app.callback(epilog=EXAMPLES)
def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL|RUN|champion...",
            help="A model's directory or location (`hf:…`), a run, RUN:STEP, a step of the latest run, or `champion` "
            "(`champion:NAME` of several), which the server follows.",
        ),
    ],
    *,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for one that is free.")] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Holds the token that clients send.  [default: a new one, printed at the start]"
        ),
    ] = None,
    no_token: Annotated[
        bool, typer.Option("--no-token", help="Answer without a token; only where this machine alone reaches it.")
    ] = False,
    allow_host: Annotated[
        list[str],
        typer.Option(metavar="NAME", help="A name that clients ask the server by. May be given several times."),
    ] = [],  # noqa: B006 - typer copies it
    allow_origin: Annotated[
        list[str],
        typer.Option(metavar="ORIGIN", help="Pages of this origin may ask (`https://…`). May be given several times."),
    ] = [],  # noqa: B006
    parallel: Annotated[
        int, typer.Option(min=1, max=256, metavar="N", help="Completions of a model that are written side by side.")
    ] = 8,
    queue: Annotated[int, typer.Option(min=0, max=10_000, metavar="N", help="Completions that may wait.")] = 32,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, max=1_000_000, metavar="N", help="Tokens of a completion at most.")
    ] = 1024,
    max_prompt_tokens: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Tokens of a prompt at most.  [default: the model's context]")
    ] = None,
    max_request: Annotated[
        int, typer.Option(min=1, max=1 << 20, metavar="KB", help="Size of a request at most.")
    ] = 1024,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=86_400, metavar="SECONDS", help="Of a request, from its arrival to its end.")
    ] = 300.0,
    drain: Annotated[
        float, typer.Option(min=0, max=3600, metavar="SECONDS", help="For which requests may go on at the end.")
    ] = 20.0,
    feedback: Annotated[
        str,
        typer.Option(
            metavar="FILE|URL",
            help="The log that POST /v1/feedback writes to (luthier-feedback); `none` to take no feedback.  "
            "[default: LUTHIER_FEEDBACK, else feedback/feedback.db]",
        ),
    ] = "",
    runtime: RuntimeOption = None,
    settings: SettingsOption = [],  # noqa: B006
    device: DeviceOption = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Of each model's process.  [default: all cores]")
    ] = None,
    plugins: PluginOption = [],  # noqa: B006
    home: HomeOption = None,
    log_prompts: Annotated[
        bool, typer.Option("--log-prompts", help="Write prompts and completions to the log; without it, never.")
    ] = False,
) -> None:
    """Serve models to clients of OpenAI's API: chat, completions, streaming, several clients at once.

    Of several models each has its name, and the page has two of them compared, unseen which is which.

    Completions are greedy where a client does not ask for a temperature, as the models were evaluated.
    """
    import logging

    from luthier import plugin_files
    from luthier_serve.feedback import place_of
    from luthier_serve.limits import Limits
    from luthier_serve.models import find_models
    from luthier_serve.opening import access_for
    from luthier_serve.server import Settings
    from luthier_serve.server import serve as run

    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    access, new_token = access_for(host, token_file, no_token=no_token, names=allow_host, origins=allow_origin)
    found = find_models(
        models,
        home=home,
        runtime=runtime,
        parameters=runtime_parameters(settings),
        device=device,
        plugins=plugin_files(Path.cwd(), plugins),
        threads=threads,
    )
    limits = Limits(
        parallel=parallel,
        queue=queue,
        body_bytes=max_request * 1024,
        prompt_tokens=max_prompt_tokens,
        new_tokens=max_new_tokens,
        seconds=timeout,
        drain_seconds=drain,
    )

    def started(address: str) -> None:
        typer.echo(f"{', '.join(found)} at {address}/v1")
        if new_token:
            typer.echo(f"token: {new_token}")
        # Browsers keep what follows the # to themselves: the page takes the token from there.
        typer.echo(f"page: {address}/{f'#token={new_token}' if new_token else ''}")

    run(Settings(found, host, port, access, limits, place_of(feedback), log_prompts), started)
