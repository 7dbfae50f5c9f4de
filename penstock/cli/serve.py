"""`penstock serve`: the gateway, with the engines it starts itself. Everything it does is decided in `app.serve`."""

from __future__ import annotations

from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import click

from penstock.cli.mistake import Mistake

USUAL_FILE = Path("penstock.yaml")


@click.command()
@click.argument("targets", nargs=-1, metavar="[TARGET]...")
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    help="The configuration file. Without it and without a TARGET: ./penstock.yaml.",
)
@click.option("--host", help="The address to listen on, before what the file says.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    help="The port to listen on, before what the file says; 0 lets the system choose.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Gateway processes; each uses one core.",
)
@click.option(
    "--replicas",
    type=click.IntRange(1, 256),
    help="Processes of the embedded engine, for every TARGET that is a model.",
)
@click.option("--insecure-dev", is_flag=True, help="Ask for no keys. Only on loopback: nobody else can reach it.")
@click.option(
    "--announce-fd",
    type=click.IntRange(0),
    hidden=True,
    help="Write one JSON line to this file descriptor when requests can be served; for whoever started this process.",
)
def serve(
    targets: tuple[str, ...],
    config_path: Path | None,
    host: str | None,
    port: int | None,
    workers: int,
    replicas: int | None,
    insecure_dev: bool,
    announce_fd: int | None,
) -> int:
    """Serve models at one OpenAI- and Anthropic-compatible address until Ctrl-C or SIGTERM.

    A TARGET is a bundled model (tiny), a directory with weights (./weights), a provider's model (openai/gpt-5-mini) or
    the address of an engine that you run (http://10.0.0.4:8000). Without any, a configuration file says what to serve.
    On SIGTERM requests in flight may finish; a second one ends them.

    \b
    Providers, with their key in the usual environment variable
      openai/MODEL, anthropic/MODEL, gemini/MODEL, groq/MODEL, ...
      azure/RESOURCE/DEPLOYMENT       https://RESOURCE.openai.azure.com
      bedrock/REGION/MODEL            with AWS's own credentials

    \b
    Examples
      penstock serve tiny                              a small model, in this machine
      penstock serve tiny --replicas 2 --port 9000
      penstock serve http://10.0.0.4:8000 openai/gpt-5-mini
      penstock serve anthropic/claude-sonnet-4-5
      penstock serve --config penstock.yaml --workers 4
    """
    from penstock.app.options import ServeOptions
    from penstock.app.serve import serve as serve_until_stopped

    if targets and config_path is not None:
        raise Mistake("Name targets or a configuration file, not both: put the targets into the file.")
    if not targets and config_path is None:
        if not USUAL_FILE.exists():
            raise Mistake(
                "There is nothing to serve: no TARGET, and no penstock.yaml in this folder.\n"
                "Try `penstock serve tiny`, or write a file to begin with: `penstock init`."
            )
        config_path = USUAL_FILE
    options = ServeOptions(
        config_path=None if config_path is None else str(config_path),
        targets=targets,
        host=host,
        port=port,
        workers=workers,
        insecure_dev=insecure_dev,
        engine_replicas=replicas,
        announce_fd=announce_fd,
    )
    return run_loop(serve_until_stopped(options, tell))


def run_loop(until_stopped: Coroutine[Any, Any, int]) -> int:
    import asyncio

    from penstock.app.system import loop_factory

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(until_stopped)


def tell(line: str) -> None:
    """What happens, for the person at the terminal. stderr: stdout may be where the access log goes."""
    click.echo(line, err=True)
