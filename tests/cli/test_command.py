"""The command as a whole: help that teaches, exit codes, and errors without tracebacks."""

import click
import pytest

from penstock.app.errors import StartError
from penstock.cli.main import penstock as command
from penstock.cli.main import run
from penstock.config.schema import OPTIONS_OF_REPLICA


def verbs(path: tuple[str, ...], node: click.Command):
    if isinstance(node, click.Group):
        for name, inner in node.commands.items():
            yield from verbs((*path, name), inner)
    else:
        yield path, node


VERBS = list(verbs((), command))


@pytest.mark.parametrize(("path", "verb"), VERBS, ids=[" ".join(path) for path, _ in VERBS])
def test_the_help_of_every_verb_has_an_example(penstock, path, verb):
    ran = penstock(*path, "--help")
    assert ran.code == 0
    assert "Example" in ran.out
    assert f"penstock {' '.join(path)}" in ran.out.partition("Example")[2]


@pytest.mark.parametrize(("path", "verb"), VERBS, ids=[" ".join(path) for path, _ in VERBS])
def test_every_option_says_what_it_does(path, verb):
    assert [option.name for option in verb.params if isinstance(option, click.Option) and not option.help] == []


def test_every_option_that_a_deployment_hands_to_its_engine_is_one_of_the_engines_command():
    engine = command.commands["engine"]
    known = {name for option in engine.params for name in option.opts}
    assert {f"--{option.replace('_', '-')}" for option in OPTIONS_OF_REPLICA} <= known
    assert {"--model", "--host", "--port", "--served-name", "--announce-fd"} <= known


def test_the_version_is_the_packages(penstock):
    from penstock import __version__

    assert penstock("--version").out == f"penstock {__version__}\n"


def test_an_unknown_verb_is_a_mistake_in_what_was_asked(penstock):
    assert penstock("sevre").code == 2


def test_an_unknown_option_is_a_mistake_in_what_was_asked(penstock):
    ran = penstock("serve", "tiny", "--prot", "1")
    assert ran.code == 2
    assert "--port" in ran.err


def test_nothing_to_serve_is_told_with_what_to_try(penstock):
    ran = penstock("serve")
    assert ran.code == 2
    assert "Try `penstock serve tiny`" in ran.err


def test_targets_and_a_file_together_are_refused(penstock):
    ran = penstock("serve", "tiny", "--config", "penstock.yaml")
    assert ran.code == 2
    assert "not both" in ran.err


def test_an_engine_without_its_weights_is_told_without_a_traceback(penstock):
    ran = penstock("engine", "--model", "./nowhere", "--port", "0")
    assert ran.code == 2
    assert "nowhere" in ran.err
    assert "Traceback" not in ran.err


@pytest.fixture
def broken_verb():
    """A verb with a bug, for as long as the test runs."""

    @click.command()
    def broken() -> None:
        raise KeyError("who wrote this")

    command.add_command(broken)
    yield
    del command.commands["broken"]


def test_a_bug_is_one_line_and_how_to_report_it(penstock, broken_verb):
    ran = penstock("broken")
    assert ran.code == 1
    assert "unexpected KeyError: 'who wrote this'" in ran.err
    assert "PENSTOCK_DEBUG=1" in ran.err
    assert "Traceback" not in ran.err


def test_a_bug_shows_its_traceback_to_those_who_ask(penstock, broken_verb, monkeypatch):
    monkeypatch.setenv("PENSTOCK_DEBUG", "1")
    ran = penstock("broken")
    assert ran.code == 1
    assert "Traceback" in ran.err


def test_ctrl_c_is_exit_code_130(monkeypatch, broken_verb):
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command.commands["broken"], "callback", interrupted)
    assert run(["broken"]) == 130


def test_what_broke_inside_a_task_group_is_told_as_what_it_was(penstock, broken_verb, monkeypatch):
    def broken() -> None:
        raise ExceptionGroup("tasks", [ExceptionGroup("more", [StartError("Port 80 is taken.")])])

    monkeypatch.setattr(command.commands["broken"], "callback", broken)
    ran = penstock("broken")
    assert (ran.code, ran.err) == (2, "Port 80 is taken.\n")
