"""`penstock init`: writes a penstock.yaml that works as it is and explains the rest in comments."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from penstock.cli.mistake import Mistake

# Every block between `#` lines must also be right when its marks are taken away; tests do that.
STARTER: Final = """\
# Penstock's one configuration file. `penstock check` says what it means; `penstock serve` runs it.
# Unknown options are errors, with the line and the nearest right name.

# The names that callers use, each with the deployments that may answer, best first.
# When one fails before its first token, the next one is tried.
models:
  chat:
    deployments: [local]
    # timeouts: { first_token: 30s, idle: 30s, total: 10m }
    # hedge_after: 2s  # no first token by then: a second attempt starts beside the first
    # max_tokens: { most: 8192, default: 1024 }  # more is refused; who asks for nothing gets the default, and is told

# One model at one place. Exactly one of `model`, `engine` and `provider` says which kind of place.
deployments:
  # Penstock's own small engine, in processes that it starts and watches. `tiny` is bundled; a path means your weights.
  local:
    model: tiny
    replicas: 2

  # Engines that you run (vLLM, SGLang, llama.cpp, Ollama, TGI): the addresses, and the name they know the model by.
  # pool:
  #   engine: [http://10.0.0.4:8000/v1, http://10.0.0.5:8000/v1]
  #   served: llama-3-8b
  #   price: { gpu_hour: $2.50, input_tokens_per_second: 20000, output_tokens_per_second: 2000 }

  # A provider. The key is never written here: env:NAME or file:/path says where it is.
  # openai:
  #   provider: openai
  #   served: gpt-5-mini
  #   key: env:OPENAI_API_KEY

# Who may call. `penstock key create --id web` makes a key in the database; with --in-file it prints its line for here.
# Without keys, `penstock serve --insecure-dev` answers anybody on this machine, and nobody else.
# keys:
#   - { id: web, sha256: "0000000000000000000000000000000000000000000000000000000000000000" }

# How much may be asked for, counted apart for each key (or `per: team`, `user`, `model`, `all`).
# limits:
#   calls: { requests: 600/m }
#   tokens: { tokens: 2M/d, per: team }

# How much may be spent. What was spent is in the ledger, so that a restart does not forget it.
# budgets:
#   house: { amount: $500, every: month, per: all, mode: soft, notify: [50%, 100%] }
# store:
#   database: penstock.db

server:
  host: 127.0.0.1  # 0.0.0.0 to be reached from other machines; needs keys
  port: 8080
"""


@click.command()
@click.argument("file", type=click.Path(path_type=Path), default=Path("penstock.yaml"))
def init(file: Path) -> None:
    """Write a starter penstock.yaml, with comments, that runs as it is. Never overwrites.

    \b
    Examples
      penstock init
      penstock init configs/staging.yaml
    """
    try:
        with file.open("x", encoding="utf-8") as new:
            new.write(STARTER)
    except FileExistsError:
        raise Mistake(f"{file} exists and is left as it is. Name another file, or move it away.") from None
    except OSError as error:
        raise Mistake(f"{file} cannot be written: {error.strerror}") from None
    option = "" if str(file) == "penstock.yaml" else f" --config {file}"
    click.echo(f"Wrote {file}. Next:\n")
    click.echo(f"  penstock check {file}")
    click.echo(f"  penstock serve{option} --insecure-dev")
    click.echo("\n--insecure-dev: nobody is asked for a key, and only this machine can call. With keys, leave it out.")
