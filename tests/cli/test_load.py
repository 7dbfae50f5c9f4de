"""`penstock load` as a person uses it: what is printed, written, refused."""

import json
import os
import signal
import subprocess
import sys
import threading
from importlib.resources import files

import pytest

from penstock.cli.load import Span

QUICK = ("--users", "2", "--requests", "6", "--prompt-tokens", "40", "--output-tokens", "4")


def test_it_says_what_callers_feel_and_what_the_server_counted(penstock, server):
    ran = penstock("load", server.url, *QUICK)
    assert ran.code == 0 and ran.err == ""
    assert ran.out.startswith(f"first at {server.url}: 6 requests in ")
    for line in ("TTFT ms", "TPOT ms", "ITL ms", "E2E ms", "Throughput: "):
        assert f"\n{line}" in ran.out
    assert "Prompts: 3 tokens on average" in ran.out and "Answers: 2 tokens on average (4 wanted)." in ran.out
    assert len(server.asked) == 2 + 6, "two to measure words by, then the load"
    assert server.asked[-1]["max_tokens"] == 4 and server.asked[-1]["stream"] is True


def test_an_open_loop_says_both_from_when_it_was_meant_and_from_when_it_was_sent(penstock, server):
    ran = penstock("load", server.url, "--rate", "200", "--requests", "5")
    assert ran.code == 0
    for line in ("TTFT ms from the intended time", "TTFT ms from sending", "E2E ms from sending"):
        assert line in ran.out


def test_reports_are_written_as_json_and_html_and_lines(penstock, server, tmp_path):
    ran = penstock("load", server.url, *QUICK, "--slo", "ttft=10s", "--seed", "7",
                   "--json", "r.json", "--html", "r.html", "--samples", "s.jsonl")  # fmt: skip
    assert ran.code == 0 and "Goodput: 100.0 %" in ran.out
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["setting"]["seed"] == 7 and report["setting"]["model"] == "first"
    assert report["results"]["ok"] == 6 and report["results"]["good"] == 1.0
    assert report["slo"] == {"ttft": 10.0, "tpot": None, "e2e": None}
    assert len((tmp_path / "s.jsonl").read_text().splitlines()) == 6
    page = (tmp_path / "r.html").read_text()
    assert page.startswith("<!doctype html>") and "Load on first" in page and len(page) < 200_000


def test_the_same_seed_sends_the_same_texts_and_another_one_others(penstock, server):
    def texts(seed):
        server.asked.clear()
        penstock("load", server.url, *QUICK, "--seed", seed)
        return sorted(body["messages"][0]["content"] for body in server.asked[2:])

    assert texts("7") == texts("7")
    assert not set(texts("7")) & set(texts("8"))


def test_a_traffic_file_is_what_is_sent(penstock, server, tmp_path):
    (tmp_path / "t.yaml").write_text(
        "models: {}\ntraffic:\n"
        "  - {arrivals: {kind: constant, rate: 100}, requests: 3, tenant: a, model: second}\n"
        "  - {arrivals: {kind: trace, file: trace.jsonl, format: mooncake}, tenant: b}\n"
    )
    (tmp_path / "trace.jsonl").write_text('{"timestamp":0,"input_length":9,"output_length":5,"hash_ids":[1]}\n')
    ran = penstock("load", server.url, "--traffic", "t.yaml")
    assert ran.code == 0, ran.err
    assert (
        sorted((body["model"], body["max_tokens"]) for body in server.asked[2:])
        == [("first", 5)] + [("second", 128)] * 3
    )
    assert "tenant" in ran.out and "\na " in ran.out and "\nb " in ran.out


def test_keys_are_shown_to_the_server_and_never_written(penstock, server, tmp_path, monkeypatch):
    monkeypatch.setenv("KEY_OF_A", "sk-secret-a")
    (tmp_path / "t.yaml").write_text("traffic: {arrivals: {kind: users, users: 1}, requests: 1, tenant: a}\n")
    ran = penstock("load", server.url, "--traffic", "t.yaml", "--key", "sk-secret",
                   "--tenant-key", "a=KEY_OF_A", "--json", "r.json", "--html", "r.html")  # fmt: skip
    assert ran.code == 0
    written = ran.out + ran.err + (tmp_path / "r.json").read_text() + (tmp_path / "r.html").read_text()
    assert "sk-secret" not in written


def test_a_server_that_is_not_there_is_a_sentence(penstock):
    for more in ((), ("--model", "m")):
        ran = penstock("load", "http://127.0.0.1:9", *more)
        assert ran.code == 1
        assert ran.err == "nothing listens on http://127.0.0.1:9. Start one with `penstock serve tiny`.\n"


def test_a_model_that_is_not_there_is_told_with_those_that_are(penstock, server):
    server.status, server.refusal = 404, {"error": {"message": "no such model", "code": "x"}}
    ran = penstock("load", server.url, "--model", "frist")
    assert ran.code == 1
    assert "404: no such model" in ran.err
    assert "It has no model 'frist'. Did you mean `first`? It has: first, second." in ran.err


def test_a_refused_key_is_told_where_to_give_one(penstock, server):
    server.status, server.refusal = 401, {"error": {"message": "who are you?"}}
    ran = penstock("load", server.url)
    assert ran.code == 1 and "401: who are you? (give a key with --key, or PENSTOCK_API_KEY)" in ran.err


def test_failures_are_listed_by_class_and_nothing_answered_is_a_failure(penstock, server):
    class Later(int):  # well for the two probes, overloaded afterwards
        def __ne__(self, other):
            return len(server.asked) > 2

    server.status, server.refusal = Later(503), {"error": {"message": "full"}}
    ran = penstock("load", server.url, *QUICK)
    assert ran.code == 1
    assert "6 requests" in ran.out and "0 answered, 6 failed" in ran.out
    assert "Failed: 6 overloaded: 503: full" in ran.out


def test_ctrl_c_says_what_was_measured_so_far(penstock, server, monkeypatch):
    monkeypatch.setattr(server._server, "handle_error", lambda *_: None)  # it is left in mid-answer
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    ran = penstock("load", server.url, "--users", "1", "--duration", "1h")
    timer.join()
    assert ran.code == 130
    assert "stopped early" in ran.out and "TTFT ms" in ran.out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("ftp://x",), "is not the address of a"),
        (("URL", "--rate", "1", "--users", "1"), "--rate is an open loop and --users a closed one"),
        (("URL", "--duration", "30"), "is not a duration with its unit"),
        (("URL", "--slo", "p99=3s"), "is not ttft=..., tpot=... or e2e=..."),
        (("URL", "--body", "[1]"), "--body is not a JSON object"),
        (("URL", "--traffic", "none.yaml"), "none.yaml cannot be read: No such file"),
        (("URL", "--traffic", "empty.yaml"), "has no `traffic:` block"),
        (("URL", "--traffic", "wrong.yaml"), "wrong.yaml: traffic.arrivals.kind: Invalid value 'poison'"),
        (("URL", "--traffic", "lost.yaml"), "there is no trace lost.jsonl"),
        (("URL", "--traffic", "wrong.yaml", "--rate", "3"), "leave out --rate"),
        (("URL", "--tenant-key", "a=NOT_SET_ANYWHERE"), "with a variable that is set"),
        (("URL", "--max-in-flight", "100000000"), "open files, and this system allows"),
        (("URL", "--tokenizer", "wrong.yaml"), "is not a tokenizer"),
    ],
)
def test_a_mistake_is_a_sentence(penstock, server, tmp_path, arguments, told):
    (tmp_path / "empty.yaml").write_text("models: {}\n")
    (tmp_path / "wrong.yaml").write_text("traffic: {arrivals: {kind: poison}}\n")
    (tmp_path / "lost.yaml").write_text("traffic: {arrivals: {kind: trace, file: lost.jsonl, format: azure}}\n")
    ran = penstock("load", *(server.url if argument == "URL" else argument for argument in arguments))
    assert ran.code == 2 and told in ran.err, ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("500ms", 0.5), ("1.5m", 90), ("2h", 7200), ("1d", 86400)])
def test_durations_have_units(text, seconds):
    assert Span().convert(text, None, None) == seconds


def test_a_tokenizer_says_how_long_words_are(penstock, server, tmp_path):
    tokenizer = files("penstock.engine").joinpath("bundled", "tiny", "tokenizer.json")
    ran = penstock("load", server.url, *QUICK, "--tokenizer", str(tokenizer), "--json", "r.json")
    assert ran.code == 0, ran.err
    fit = json.loads((tmp_path / "r.json").read_text())["setting"]["fit"]
    assert fit["by"] == "tokenizer" and 1.0 < fit["per_word"] < 4.0


def test_lengths_are_called_estimates_where_nobody_counts(penstock, server):
    server.events = server.events[:-1]  # without the usage
    ran = penstock("load", server.url, *QUICK)
    assert ran.code == 0
    assert "The server does not count tokens: lengths of prompts are estimates." in ran.err
    assert "Prompts: 40 tokens wanted, by estimate; the server counted none." in ran.out
    assert "Answers: 2 tokens on average (pieces; the server did not count)" in ran.out


def test_at_a_terminal_a_line_says_how_it_goes(server):
    master, slave = os.openpty()
    command = [sys.executable, "-m", "penstock.cli.main", "load", server.url, *QUICK]
    ran = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=slave, env={**os.environ, "TERM": "xterm"}, check=False
    )
    os.close(slave)
    shown = os.read(master, 65_536).decode()
    os.close(master)
    assert ran.returncode == 0
    assert "0 s, 6 done, 0 in flight, TTFT " in shown and "#" not in ran.stdout.decode()
