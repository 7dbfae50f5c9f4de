"""The `penstock` command: the table of verbs, and the one place where an error becomes words and an exit code.

Exit codes: 0 it went well; 1 it went wrong while running, or `check` and `config diff` found something; 2 a mistake in
what was asked (an option, the configuration, a port that is taken); 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Final

import click

from penstock import __version__
from penstock.cli.audit import audit
from penstock.cli.chat import chat
from penstock.cli.check import check
from penstock.cli.config import config
from penstock.cli.cost import cost
from penstock.cli.db import db
from penstock.cli.engine import engine
from penstock.cli.explain import explain
from penstock.cli.init import init
from penstock.cli.key import key
from penstock.cli.load import load
from penstock.cli.migrate import migrate
from penstock.cli.org import org, team
from penstock.cli.prices import prices
from penstock.cli.profile import profile
from penstock.cli.route import route
from penstock.cli.serve import serve
from penstock.cli.simulate import simulate
from penstock.cli.slo import slo
from penstock.cli.top import top
from penstock.cli.trace import trace
from penstock.cli.user import user

OK: Final = 0
FAILED: Final = 1
MISTAKE: Final = 2
INTERRUPTED: Final = 130


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 it went well; 1 it went wrong, or something was found; 2 a mistake in what was asked; "
    "130 stopped with Ctrl-C.",
)
@click.version_option(__version__, prog_name="penstock", message="%(prog)s %(version)s")
def penstock() -> None:
    """Penstock serves large language models: one OpenAI-compatible address in front of your own engines,
    providers, and a small engine of its own.

    \b
    Start with
      penstock serve tiny           a small model inside, on http://127.0.0.1:8080
      penstock chat                 talk to it, from a second terminal
      penstock init                 write a penstock.yaml to make your own
      penstock check                say what that file means
    """


for command in (
    serve, engine, chat, load, simulate, profile, explain, check, init, key, org, team,
    user, top, trace, audit, config, cost, db, migrate, prices, route, slo,
):  # fmt: skip
    penstock.add_command(command)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and answer its exit code. Says every error on stderr, without a traceback."""
    try:
        code = penstock.main(list(arguments), prog_name="penstock", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else OK
    except click.exceptions.Exit as asked:
        return asked.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except click.ClickException as mistake:
        mistake.show()
        return mistake.exit_code
    except Exception as error:  # noqa: BLE001 - the one boundary of the command line: nobody is shown a traceback
        return _explain(error)


def _explain(error: Exception) -> int:
    """Put an error into words on stderr; the exit code that goes with it."""
    from penstock.app.errors import StartError
    from penstock.config.problems import ConfigError

    first: Exception = error
    while isinstance(first, ExceptionGroup):  # a task group wraps what broke in it, whatever it was
        first = first.exceptions[0]
    if isinstance(first, (StartError, ConfigError)):
        click.echo(str(first), err=True)
        return MISTAKE
    if isinstance(error, OSError) and error.errno == errno.EPIPE:
        # The reader went away (`| head`). Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    if os.environ.get("PENSTOCK_DEBUG") == "1":
        traceback.print_exception(error)
        return FAILED
    click.echo(f"penstock: unexpected {type(first).__name__}: {first}", err=True)
    click.echo(
        "This is a bug in Penstock. Run it again with PENSTOCK_DEBUG=1 and report what it prints, with "
        f"`penstock --version` ({__version__}) and what you did.",
        err=True,
    )
    return FAILED


def main() -> None:
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
