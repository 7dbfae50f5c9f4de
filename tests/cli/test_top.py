"""`penstock top`: a gateway's numbers of the last few seconds, read back from its page."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock.cli import top as verb
from penstock.cli.scrape import Page
from penstock.core.request import Usage
from penstock.telemetry.catalogue import with_bounds
from penstock.telemetry.fold import RequestMetrics
from penstock.telemetry.metrics import Registry
from penstock.telemetry.prometheus import Exposition, Format
from tests.console.outcomes import outcome


class Gateway:
    """Shows a page for each look, the last one for ever."""

    def __init__(self, *pages):
        self.pages, self.asked = list(pages), []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked.append(self.path)
                body = outer.pages[0] if len(outer.pages) == 1 else outer.pages.pop(0)
                self.send_response(200)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def page(registry, catalogue=None):
    return Exposition(catalogue or with_bounds({})).render(registry.snapshot(), Format.TEXT)


@pytest.fixture
def gateway():
    made = []

    def make(*pages):
        made.append(Gateway(*pages))
        return made[-1].url

    yield make
    for one in made:
        one.close()


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(verb, "pause", lambda seconds: None)


@pytest.fixture
def looks():
    """A page before and one after, with two models and a replica in between."""
    registry = Registry()
    metrics = RequestMetrics(registry)
    for _ in range(50):
        metrics.on_outcome(outcome(ttft=9.0))  # long ago
    before = page(registry)
    for _ in range(20):
        metrics.on_outcome(outcome(ttft=0.2, usage=Usage(100, 50)))
    metrics.on_outcome(outcome(model="embed", error="upstream_error"))
    gauges = {
        "penstock_replica_ready": 1, "penstock_replica_in_flight_attempts": 3, "penstock_breaker_phase": 2,
        "penstock_replica_kv_used_ratio": 0.42,
    }  # fmt: skip
    for name, value in gauges.items():
        registry.gauge(name).labels("local", "local/0").set(value)
    registry.gauge("penstock_in_flight_requests").labels().set(4)
    return before, page(registry)


def test_a_look_is_of_what_happened_since_the_last_one(penstock, gateway, looks):
    ran = penstock("top", "--url", gateway(*looks), "--once", "--json", "--every", "2")
    seen = json.loads(ran.out)
    chat, embed = seen["models"]
    assert (ran.code, chat["model"], embed["model"]) == (0, "chat", "embed")
    assert chat["requests_per_second"] == 10.0 and chat["output_tokens_per_second"] == 500.0
    assert chat["ttft_p99"] <= 0.2 and chat["error_share"] == 0.0 and embed["error_share"] == 1.0
    (replica,) = seen["replicas"]
    assert (replica["replica"], replica["breaker"], replica["kv_used"]) == ("local/0", 2.0, 0.42)
    assert (replica["attempts_per_second"], replica["failures_per_second"]) == (10.5, 0.5)
    assert seen["in_flight"] == 4


def test_people_get_a_table(penstock, gateway, looks):
    ran = penstock("top", "--url", gateway(*looks), "--once")
    assert ran.code == 0 and "\x1b" not in ran.out  # not a terminal: nothing is cleared
    lines = {line.split()[0]: line for line in ran.out.splitlines() if line}
    assert lines["chat"].split()[1:3] == ["10.0", "0"] and "open" in lines["local/0"] and "42 %" in lines["local/0"]


def test_a_gateway_nobody_asks_is_shown_too(penstock, gateway):
    empty = page(Registry())
    registry = Registry()
    RequestMetrics(registry).on_outcome(outcome())
    idle = page(registry)
    assert "Nobody has asked" in penstock("top", "--url", gateway(idle, idle), "--once").out
    assert penstock("top", "--url", gateway(empty), "--once").code == 1  # a page without a single number


@pytest.mark.parametrize("url", ["ftp://x", "http://", "//"])
def test_an_address_that_is_none_is_a_mistake(penstock, url):
    assert penstock("top", "--url", url, "--once").code == 2


def test_a_gateway_that_is_not_there_is_said_to_be(penstock, gateway):
    ran = penstock("top", "--url", "http://127.0.0.1:1", "--once")
    assert ran.code == 1 and "cannot be read" in ran.err
    ran = penstock("top", "--url", gateway(b"<html>hello</html>"), "--once")
    assert ran.code == 1 and "Is it a Penstock gateway?" in ran.err


def test_a_page_says_what_its_registry_had():
    catalogue = with_bounds({"penstock_time_to_first_token_seconds": [0.33]})
    registry = Registry(catalogue)
    metrics = RequestMetrics(registry)
    for n in range(30):
        metrics.on_outcome(outcome(ttft=0.02 * n, error=None if n % 3 else "upstream_error"))
    read = Page(page(registry, catalogue).decode())
    assert 0.33 in read.bounds["penstock_time_to_first_token_seconds"]
    had = registry.snapshot().series
    for name in ("penstock_requests_total", "penstock_time_to_first_token_seconds", "penstock_attempts_total"):
        found = {one.labels: (one.counts or one.value) for one in read.snapshot.series[name]}
        assert found == {one.labels: (one.counts or one.value) for one in had[name]}


@given(st.text(max_size=30))
@example("\\n")  # a backslash, and no new line
def test_any_label_comes_back_as_it_was(text):
    registry = Registry()
    registry.gauge("penstock_replica_ready").labels("local", text).set(1)
    found = Page(page(registry).decode()).gauge("penstock_replica_ready")
    assert list(found) == [("local", text.encode("utf-8", "replace").decode())]
