"""`penstock engine`: one replica of the embedded engine, in a process of its own. `penstock serve` starts these."""

from __future__ import annotations

import os
import traceback
from typing import TYPE_CHECKING

import click

from penstock.cli.extras import need_engine, need_kv_events

if TYPE_CHECKING:
    from penstock.engine.options import Ready


@click.command()
@click.option(
    "--model",
    default="tiny",
    show_default=True,
    help="A bundled model (tiny, tiny-small), or a directory with a checkpoint of the Llama family.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="The address to listen on. There are no keys here: let only the gateway reach it.",
)
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=8001, show_default=True, help="0 lets the system choose."
)
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    default=1,
    show_default=True,
    help="CPU threads per step. More replicas are usually better than more threads.",
)
@click.option(
    "--dtype",
    type=click.Choice(["bf16", "int8", "float32"]),
    default="bf16",
    show_default=True,
    help="What weights are kept and computed in.",
)
@click.option(
    "--max-seqs", type=click.IntRange(1), default=32, show_default=True, help="Sequences computed at the same time."
)
@click.option(
    "--max-batched-tokens",
    type=click.IntRange(1),
    default=512,
    show_default=True,
    help="Tokens computed in one step, decoding and prefill together.",
)
@click.option(
    "--max-waiting",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    help="Requests that may wait their turn; one more is answered 429.",
)
@click.option(
    "--kv-tokens",
    type=click.IntRange(1),
    default=16_384,
    show_default=True,
    help="Tokens whose keys and values are kept: running sequences and remembered prefixes together.",
)
@click.option(
    "--kernels",
    type=click.Choice(["auto", "avx512", "avx2", "portable", "numpy"]),
    default="auto",
    show_default=True,
    help="Which compiled kernels to use; auto takes the fastest this machine can run, and else NumPy.",
)
@click.option(
    "--kv-events",
    default="",
    metavar="ENDPOINT",
    help="Publish what the prefix cache holds, over ZeroMQ as vLLM does: tcp://127.0.0.1:5557, or :* for a free port.",
)
@click.option(
    "--kv-replay",
    default="",
    metavar="ENDPOINT",
    help="Where the last of these events are repeated for those who missed some.",
)
@click.option(
    "--served-name",
    "served_names",
    multiple=True,
    help="A name callers may use for the model; repeat for more. Without it: the last part of --model.",
)
@click.option(
    "--announce-fd",
    type=click.IntRange(0),
    default=None,
    hidden=True,
    help="Write one JSON line to this file descriptor when ready; for whoever started this process.",
)
def engine(
    model: str,
    host: str,
    port: int,
    threads: int,
    dtype: str,
    max_seqs: int,
    max_batched_tokens: int,
    max_waiting: int,
    kv_tokens: int,
    kernels: str,
    kv_events: str,
    kv_replay: str,
    served_names: tuple[str, ...],
    announce_fd: int | None,
) -> None:
    """Run one replica of the embedded engine: an OpenAI-compatible server over one model, on CPU.

    Continuous batching, paged KV cache, prefix reuse. Usually you want `penstock serve`, which starts replicas, watches
    them and puts the gateway in front.

    \b
    Examples
      penstock engine --model tiny --port 8001
      penstock engine --model ./llama-3.2-1b --dtype int8 --threads 4
    """
    import msgspec

    need_engine()
    if kv_events:
        need_kv_events()
    from penstock.app.errors import StartError
    from penstock.engine.options import EngineOptions
    from penstock.engine.replica import ReplicaError, run_engine

    given = {
        "model": model,
        "host": host,
        "port": port,
        "threads": threads,
        "dtype": dtype,
        "max_seqs": max_seqs,
        "max_batched_tokens": max_batched_tokens,
        "max_waiting": max_waiting,
        "kv_tokens": kv_tokens,
        "kernels": kernels,
        "kv_events": kv_events,
        "kv_replay": kv_replay,
        "served_names": served_names,
    }
    try:
        options = msgspec.convert(given, EngineOptions)
    except msgspec.ValidationError as error:
        raise click.UsageError(str(error)) from None

    def ready(replica: Ready) -> None:
        if announce_fd is None:
            click.echo(str(replica))
        else:
            line = msgspec.json.encode({**msgspec.to_builtins(replica), "pid": os.getpid()}) + b"\n"
            os.write(announce_fd, line)
            os.close(announce_fd)
        for note in replica.notes:
            click.echo(f"Note: {note}", err=True)

    try:
        run_engine(options, on_ready=ready, on_problem=_tell_of_a_mistake_of_ours)
    except ReplicaError as error:
        raise StartError(str(error)) from None


def _tell_of_a_mistake_of_ours(error: Exception) -> None:
    """A request failed in a way it must not; the replica goes on. Its operator should know, and report it."""
    click.echo("penstock engine: a request failed unexpectedly:", err=True)
    click.echo("".join(traceback.format_exception(error)), err=True)
