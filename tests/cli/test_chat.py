"""`penstock chat` against a server that says what the test tells it to."""

import io
import os
import pty
import select
import signal
import subprocess
import sys

import pytest

from penstock.cli.chat import printable


@pytest.fixture
def typed(monkeypatch):
    def lines(*text: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(line + "\n" for line in text)))

    return lines


def test_an_answer_is_printed_as_it_was_said(penstock, server, typed):
    typed("Hi")
    ran = penstock("chat", "--url", server.url)
    assert (ran.code, ran.out, ran.err) == (0, "Hello there.\n", "")


def test_the_second_question_carries_the_first_and_its_answer(penstock, server, typed):
    typed("Hi", "And now?")
    penstock("chat", "--url", server.url, "--system", "Be short.")
    assert [(m["role"], m["content"]) for m in server.asked[1]["messages"]] == [
        ("system", "Be short."),
        ("user", "Hi"),
        ("assistant", "Hello there."),
        ("user", "And now?"),
    ]


def test_new_forgets_what_was_said(penstock, server, typed):
    typed("Hi", "/new", "Again")
    penstock("chat", "--url", server.url)
    assert [m["content"] for m in server.asked[1]["messages"]] == ["Again"]


def test_retry_asks_the_same_without_the_answer_that_was_not_liked(penstock, server, typed):
    typed("Hi", "/retry")
    penstock("chat", "--url", server.url)
    assert server.asked[0]["messages"] == server.asked[1]["messages"]


def test_the_model_is_the_first_one_until_another_is_named(penstock, server, typed):
    typed("Hi", "/model second", "Hi")
    penstock("chat", "--url", server.url)
    assert [body["model"] for body in server.asked] == ["first", "second"]


def test_a_model_that_is_not_there_is_told_with_the_nearest_one(penstock, server, typed):
    ran = penstock("chat", "--url", server.url, "--model", "secnd")
    assert ran.code == 1
    assert "no model 'secnd'. Did you mean `second`?" in ran.err


def test_an_unknown_command_is_not_sent_to_the_model(penstock, server, typed):
    typed("/modle second")
    ran = penstock("chat", "--url", server.url)
    assert "/modle is not a command" in ran.err
    assert server.asked == []


def test_the_key_is_shown_to_the_gateway(penstock, server, typed, monkeypatch):
    monkeypatch.setenv("PENSTOCK_API_KEY", "sk-pen-x")
    typed("Hi")
    penstock("chat", "--url", server.url)
    assert server.authorization == ["Bearer sk-pen-x"]


def test_a_refusal_is_told_in_the_gateways_words_and_the_exit_code(penstock, server, typed):
    server.status = 429
    server.refusal = {"error": {"message": "too many tokens this minute."}}
    server.headers = {"retry-after": "3"}
    typed("Hi")
    ran = penstock("chat", "--url", server.url)
    assert ran.code == 1
    assert ran.err == "429: too many tokens this minute. Retry after 3 s.\n"


def test_what_was_asked_in_vain_is_not_part_of_the_conversation(penstock, server, typed):
    server.events = [{"error": {"message": "the model server broke"}}]
    typed("Hi", "Again")
    ran = penstock("chat", "--url", server.url)
    assert ran.err.splitlines() == ["the model server broke"] * 2
    assert [m["content"] for m in server.asked[1]["messages"]] == ["Again"]


def test_an_answer_without_its_end_is_told_as_broken_off(penstock, server, typed):
    server.events = server.events[:1]
    server.done = False
    typed("Hi")
    ran = penstock("chat", "--url", server.url)
    assert ran.code == 1
    assert ran.out == "Hello \n"
    assert "the answer broke off" in ran.err


def test_no_gateway_is_told_with_how_to_start_one(penstock):
    ran = penstock("chat", "--url", "http://127.0.0.1:1")
    assert ran.code == 1
    assert ran.err == "nothing listens on http://127.0.0.1:1. Start one with `penstock serve tiny`.\n"


def test_something_that_is_no_address_is_a_mistake_in_what_was_asked(penstock):
    ran = penstock("chat", "--url", "ftp://x")
    assert ran.code == 2
    assert "is not the address of a gateway" in ran.err


def test_an_answer_cannot_steer_the_terminal():
    assert printable("a\x1b]0;owned\x07b\x9b31m\tc\n") == "a]0;ownedb31m\tc\n"


@pytest.mark.journey
def test_ctrl_c_stops_the_answer_and_not_the_conversation(server):
    server.events = [*server.events[:1], None]
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "penstock.cli.main", "chat", "--url", server.url]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    screen = Screen(ours)
    try:
        screen.wait_for("> ")
        os.write(ours, b"Hi\n")
        screen.wait_for("Hello ")
        process.send_signal(signal.SIGINT)
        screen.wait_for("stopped")
        assert server.caller_left.wait(10)
        screen.wait_for("> ")
        os.write(ours, b"/quit\n")
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


class Screen:
    """What a program wrote to its terminal, read on from where the last look ended."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self._unread = ""

    def wait_for(self, text: str) -> None:
        while text not in self._unread:
            ready, _, _ = select.select([self._terminal], [], [], 20)
            assert ready, f"{text!r} did not come; what came: {self._unread!r}"
            self._unread += os.read(self._terminal, 4096).decode()
        self._unread = self._unread.partition(text)[2]
