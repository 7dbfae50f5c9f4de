"""`penstock chat`: a conversation in the terminal with a gateway that runs. Nothing of it is stored."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import click

from penstock.cli.mistake import Failure

if TYPE_CHECKING:
    from penstock.cli.conversation import Answer, Caller, Message

COMMANDS: Final = """\
  /new           forget what was said and begin again
  /system TEXT   what the model is told before everything else; empty: nothing
  /model NAME    go on with another model
  /models        the models this gateway has
  /retry         ask the last question once more
  /help          this list
  /quit          leave (or Ctrl-D); Ctrl-C stops an answer"""


@click.command()
@click.option(
    "--url",
    envvar="PENSTOCK_URL",
    default="http://127.0.0.1:8080",
    show_default=True,
    show_envvar=True,
    help="Where the gateway is.",
)
@click.option("--model", help="The model to talk to. Without it: the first one the gateway has.")
@click.option(
    "--key",
    envvar="PENSTOCK_API_KEY",
    show_envvar=True,
    help="The API key to show. Better in the environment than here, where `ps` shows it.",
)
@click.option("--system", "system", default="", help="What the model is told before everything else.")
def chat(url: str, model: str | None, key: str | None, system: str) -> int:
    """Talk to a running gateway, or to anything OpenAI-compatible.

    Answers appear as they are made. Ctrl-C stops an answer, Ctrl-D leaves, /help lists what else can be typed.
    When the input is not a terminal, every line is one question and only the answers are printed.

    \b
    Examples
      penstock chat
      penstock chat --model chat --system "Answer in one sentence."
      PENSTOCK_API_KEY=sk-pen-... penstock chat --url https://llm.example.com
      echo "What is continuous batching?" | penstock chat
    """
    from penstock.cli.conversation import Caller, CallFailed
    from penstock.core.clock import SystemClock

    try:
        caller = Caller(url, key, SystemClock())
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--url") from None
    try:
        names = caller.models()
    except CallFailed as error:
        raise Failure(str(error)) from None
    if model is None:
        if not names:
            raise Failure(f"{caller.address} has no model that this key may use")
        model = names[0]
    elif model not in names:
        from penstock.config.problems import nearest

        raise Failure(
            f"{caller.address} has no model {model!r}.{nearest(model, names)} It has: {', '.join(names) or 'none'}."
        )
    talk = _Talk(caller, model, system, at_terminal=sys.stdin.isatty() and sys.stdout.isatty())
    return talk.run()


class _Talk:
    """The loop between a person and a model. Owns what was said so far."""

    def __init__(self, caller: Caller, model: str, system: str, *, at_terminal: bool) -> None:
        self._caller = caller
        self._model = model
        self._system = system
        self._at_terminal = at_terminal
        self._said: list[Message] = []
        self._failed = False

    def run(self) -> int:
        if self._at_terminal:
            import readline  # noqa: F401 - line editing and history of `input`, by being imported

            click.secho(f"{self._model} at {self._caller.address}. /help lists commands, Ctrl-D leaves.", dim=True)
        while True:
            try:
                line = input("> " if self._at_terminal else "").strip()
            except EOFError:
                if self._at_terminal:
                    click.echo()
                return 1 if self._failed else 0
            except KeyboardInterrupt:
                click.echo()
                continue
            if line.startswith("/"):
                if self._obey(line):
                    return 0
            elif line:
                self._ask(line)

    def _obey(self, line: str) -> bool:
        """Do what a /command says; whether it says to leave."""
        from penstock.cli.conversation import CallFailed

        verb, _, rest = line.partition(" ")
        rest = rest.strip()
        match verb:
            case "/quit" | "/exit" | "/q":
                return True
            case "/help" | "/?":
                click.echo(COMMANDS)
            case "/new":
                self._said.clear()
                self._note("A new conversation.")
            case "/system":
                self._system = rest
                self._note("The model is told so from now on." if rest else "The model is told nothing beforehand.")
            case "/models" | "/model":
                try:
                    names = self._caller.models()
                except CallFailed as error:
                    self._complain(str(error))
                    return False
                if verb == "/models" or not rest:
                    click.echo("\n".join(f"  {name}{'  (now)' if name == self._model else ''}" for name in names))
                elif rest in names:
                    self._model = rest
                    self._note(f"Going on with {rest}.")
                else:
                    self._complain(f"There is no model {rest!r}. There is: {', '.join(names)}.")
            case "/retry":
                last = next((i for i in reversed(range(len(self._said))) if self._said[i].role == "user"), None)
                if last is None:
                    self._complain("Nothing was asked yet.")
                else:
                    question = self._said[last].content
                    del self._said[last:]
                    self._ask(question)
            case _:
                self._complain(f"{verb} is not a command. /help lists them.")
        return False

    def _ask(self, question: str) -> None:
        from penstock.cli.conversation import CallFailed, Message

        messages = [Message("system", self._system)] if self._system else []
        messages += [*self._said, Message("user", question)]
        answer: Answer | None = None
        note = ""
        try:
            answer = self._caller.ask(self._model, messages)
            for text in answer:
                click.echo(printable(text), nl=False)
            note = summary(answer)
        except KeyboardInterrupt:
            note = "stopped"
        except CallFailed as error:
            if answer is not None and answer.text:
                click.echo()
            self._failed = True
            self._complain(str(error))
            return  # what was asked in vain is not part of the conversation
        finally:
            self._caller.close()
        click.echo()
        self._note(note)
        self._said += [Message("user", question), Message("assistant", answer.text if answer is not None else "")]

    def _note(self, text: str) -> None:
        if self._at_terminal:
            click.secho(text, dim=True)

    def _complain(self, text: str) -> None:
        click.secho(text, err=True, fg="red")


def printable(text: str) -> str:
    """Without control characters: a model must not be able to steer the terminal of whoever reads it."""
    return "".join(c for c in text if c in "\n\t" or (c >= " " and c != "\x7f" and not "\x80" <= c <= "\x9f"))


def summary(answer: Answer) -> str:
    """One line about an answer: time to the first token, speed, and who answered."""
    parts = []
    if answer.first_token_after is not None:
        parts.append(f"first token after {answer.first_token_after * 1000:.0f} ms")
    if answer.tokens is not None:
        parts.append(f"{answer.tokens} token{'' if answer.tokens == 1 else 's'}")
    if answer.tokens_per_second is not None:
        parts.append(f"{answer.tokens_per_second:.0f} tokens/s")
    if answer.replica:
        parts.append(f"from {answer.replica}")
    if answer.finish_reason not in (None, "stop"):
        parts.append(f"ended: {answer.finish_reason}")
    return ", ".join(parts)
