"""`penstock trace`: single requests out of their file, for people and for scripts."""

import asyncio
import json
import sqlite3
import threading

import pytest

from penstock.cli import trace as verbs
from penstock.core.clock import SystemClock
from penstock.core.plan import Attempt
from penstock.stores.outcomes import Kept, Outcomes
from tests.console.outcomes import kept, outcome

FILE = "models: { chat: { deployments: [a] } }\ndeployments: { a: { engine: http://a:1 } }\n"


@pytest.fixture
def keep(tmp_path, monkeypatch):
    """Writes requests into the file of a gateway that is configured here."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "penstock.yaml").write_text(FILE)

    def write(*some):
        async def main():
            store = await Outcomes.open(tmp_path / "penstock.traces.db", SystemClock())
            store.offer(some)
            await store.write()
            await store.close()

        asyncio.run(main())

    return write


def now():
    return SystemClock().wall()


def test_a_request_is_shown_as_a_waterfall(penstock, keep):
    attempts = (
        Attempt(0, "local/0", "overloaded", 0.1, None, 0.5),
        Attempt(1, "cloud/0", "ok", 0.5, 0.75, 1.0),
    )
    one = outcome(
        now(), id="req_1", attempts=attempts, ttft=0.75, took=1.0, admitted_after=0.1, why=("rule `cheap` holds",),
        degraded=("model=small",), trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
    )  # fmt: skip
    keep(Kept(one, "degraded"))
    ran = penstock("trace", "show", "req_1")
    assert ran.code == 0 and "kept: degraded" in ran.out and "why: rule `cheap` holds" in ran.out
    bars = {line.strip().split("  ")[0]: line for line in ran.out.splitlines() if "█" in line}
    assert bars["chat.completions chat"].count("█") == verbs.WIDTH
    first, second = bars["chat chat (local/0)"], bars["chat chat (cloud/0)"]
    assert first.rstrip().endswith("overloaded") and first.index("█") < second.index("█")
    assert bars["prefill"].count("█") == bars["decode"].count("█") == verbs.WIDTH // 4
    assert penstock("trace", "show", one.trace_id).out == ran.out


def test_a_script_gets_the_whole_receipt_and_its_spans(penstock, keep):
    keep(kept(now(), id="req_1", session="s"))
    found = json.loads(penstock("trace", "show", "req_1", "--json").out)
    assert found["outcome"]["session"] == "s" and found["trace"]["spans"][0]["role"] == "request"


def test_a_request_that_is_not_there_is_said_to_be(penstock, keep):
    keep(kept(now()))
    ran = penstock("trace", "show", "req_nobody")
    assert ran.code == 1 and "no request 'req_nobody' is kept" in ran.err


def test_the_last_requests_are_shown_with_the_newest_at_the_end(penstock, keep):
    keep(*(kept(now() - 100 + n, id=f"req_{n:03}") for n in range(30)))
    lines = penstock("trace", "tail", "-n", "3").out.splitlines()
    assert [line.split()[1] for line in lines] == ["ID", "req_027", "req_028", "req_029"]


def test_a_tail_goes_on_with_what_is_kept_meanwhile(penstock, keep, monkeypatch):
    keep(kept(now(), id="req_before"))
    turns = iter([lambda: keep(kept(now(), id="req_later"), kept(now(), id="req_other", model="embed")), lambda: None])

    def pause(seconds):
        turn = next(turns, None)
        if turn is None:
            raise KeyboardInterrupt
        thread = threading.Thread(target=turn)  # another process, as it were
        thread.start()
        thread.join()

    monkeypatch.setattr(verbs, "pause", pause)
    ran = penstock("trace", "tail", "-f", "--json", "model=chat")
    assert ran.code == 130
    assert [json.loads(line)["request_id"] for line in ran.out.splitlines()] == ["req_before", "req_later"]


def test_what_is_looked_for_is_found_and_nothing_else(penstock, keep):
    at = now() - 1_000
    keep(kept(at, id="req_a"), kept(at, id="req_b", error="upstream_error"), kept(at, id="req_c", ttft=3.0))
    ran = penstock("trace", "grep", "error", "--json")
    assert [json.loads(line)["request_id"] for line in ran.out.splitlines()] == ["req_b"]
    assert "req_c" in penstock("trace", "grep", "ttft>2", "model=chat").out
    assert penstock("trace", "grep", "ttft>2", "--last", "5m").code == 1
    assert penstock("trace", "grep", "model=nobody").code == 1


@pytest.mark.parametrize("words", [["modle=x"], ["ttft=soon"], ["ttft>1", "--last", "soon"]])
def test_what_means_nothing_is_a_mistake(penstock, keep, words):
    keep(kept(now()))
    ran = penstock("trace", "grep", *words)
    assert ran.code == 2 and ran.err and not ran.out


def test_without_a_file_it_says_what_makes_one(penstock, tmp_path):
    (tmp_path / "penstock.yaml").write_text(FILE)
    ran = penstock("trace", "tail")
    assert ran.code == 2 and "penstock.traces.db" in ran.err


def test_a_gateway_that_keeps_none_is_told_apart(penstock, tmp_path):
    (tmp_path / "penstock.yaml").write_text(FILE + "store: { traces: off }\n")
    ran = penstock("trace", "tail")
    assert ran.code == 2 and "store.traces" in ran.err


@pytest.mark.parametrize(
    ("store", "file"),
    [
        ("", "penstock.traces.db"),
        ("store: { database: books.db }\n", "books.traces.db"),
        ("store: { traces: mine.db }\n", "mine.db"),
        ("store: { database: 'postgres://u@h/n' }\n", "penstock.traces.db"),
        ("store: { database: off, traces: mine.db }\n", "mine.db"),
    ],
)
def test_the_file_is_where_the_configuration_says(penstock, tmp_path, store, file):
    (tmp_path / "penstock.yaml").write_text(FILE + store)
    ran = penstock("trace", "tail")
    assert ran.code == 2 and ran.err.startswith(f"there is no {file}")


def test_a_file_that_is_none_is_refused(penstock, tmp_path):
    (tmp_path / "x.db").write_text("not a database at all, but a text that is long enough to look like something")
    assert penstock("trace", "tail", "--traces", "x.db").code == 1


def test_no_control_character_reaches_the_terminal(penstock, keep):
    text = "\x1b[2J\x07evil"
    keep(kept(now(), id="req_1", model=text, session=text, feature=text, why=text))
    for verb in (["show", "req_1"], ["tail"], ["grep", "evil"]):
        ran = penstock("trace", *verb)
        assert ran.code == 0 and "\x1b" not in ran.out and "\x07" not in ran.out and "evil" in ran.out


def test_requests_become_a_table_for_others_to_read(penstock, keep, tmp_path):
    import pyarrow.parquet

    keep(*(kept(now(), id=f"req_{n}", cost_nanos=n) for n in range(5)), kept(now(), id="req_x", error="upstream_error"))
    assert penstock("trace", "export", "t.parquet", "status=ok").code == 0
    table = pyarrow.parquet.read_table(tmp_path / "t.parquet").to_pydict()
    assert sorted(table["request_id"]) == [f"req_{n}" for n in range(5)] and set(table["status"]) == {200}
    assert f"{max(table['cost']):f}" == "0.000000004" and json.loads(table["receipt"][0])["model"] == "chat"
    assert penstock("trace", "export", "t.csv", "--format", "csv").code == 0
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 7


def test_looking_changes_nothing(penstock, keep, tmp_path):
    keep(kept(now(), id="req_1"))
    with sqlite3.connect(tmp_path / "penstock.traces.db") as before:
        rows = before.execute("select * from outcomes").fetchall()
    before.close()
    for verb in (["show", "req_1"], ["tail"], ["grep", "error"]):
        penstock("trace", *verb)
    with sqlite3.connect(tmp_path / "penstock.traces.db") as after:
        assert after.execute("select * from outcomes").fetchall() == rows
    after.close()
