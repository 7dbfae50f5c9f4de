"""`penstock slo`: rules, report, import, and how it stands."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from penstock.cli.main import run
from penstock.control.slo import SloWatch
from penstock.quality.alerts import RULES
from penstock.quality.slo import Slo
from penstock.stores.databases import open_database
from penstock.stores.entry import Entry
from penstock.stores.ledger import SqlLedger
from penstock.stores.migrate import migrate
from penstock.telemetry.metrics import Registry
from penstock.telemetry.prometheus import Exposition

CONFIG = """\
models: { chat: { deployments: [local] } }
deployments: { local: { model: tiny } }
slos:
  available: { of: availability, objective: 90% }
  quick: { of: e2e, within: 2s, objective: 50% }
  first: { of: ttft, within: 2s, objective: 99% }
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "penstock.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def ledger(folder: Path) -> Path:
    """November 2026 of two organisations: of ten requests of acme, one failed and one was spoilt by its caller."""
    start = int(datetime(2026, 11, 1, tzinfo=UTC).timestamp() * 1e6)

    def row(n: int, org: str = "acme", error: str | None = None, seconds: float = 1.0, at: int = 0) -> Entry:
        return Entry(
            f"{org}{n}", start + at + n * 3_600_000_000, org=org, key_id="web", model="chat", error=error,
            duration_micros=int(seconds * 1e6), usage_source="provider", input_tokens=10, output_tokens=5,
            cost_nanos=10**6,
        )  # fmt: skip

    rows = [row(n, seconds=n + 1) for n in range(8)] + [row(8, error="upstream_error"), row(9, error="invalid_request")]
    rows += [row(0, "rival"), row(1, "rival", at=40 * 86_400_000_000)]

    async def make() -> None:
        database = await open_database(str(folder / "penstock.db"))
        await migrate(database, 0.0)
        await SqlLedger(database).append(rows)
        await database.close()

    asyncio.run(make())
    return folder / "penstock.db"


def test_the_report_says_what_a_month_was_like_for_every_organisation(ledger: Path, capsys: pytest.CaptureFixture[str]):
    assert run(["slo", "report", "--month", "2026-11", "--json"]) == 1  # availability is broken
    acme, rival = json.loads(capsys.readouterr().out)["tenants"]
    assert (acme["org"], acme["requests"], acme["valid"], acme["failed"]) == ("acme", 10, 9, 1)
    assert acme["availability"] == pytest.approx(8 / 9)
    assert (acme["p50"], acme["p95"], acme["p99"]) == (4.0, 8.0, 8.0)
    assert acme["bad_hours"] == 1
    assert acme["errors"] == {"upstream_error": 1, "invalid_request": 1}
    promises = {promise["slo"]: promise for promise in acme["promises"]}
    assert promises["available"]["met"] is False
    assert promises["quick"]["achieved"] == pytest.approx(0.4)
    assert rival["requests"] == 1
    assert all(promise["met"] for promise in rival["promises"])


def test_the_report_is_words_too_and_says_what_it_cannot_know(ledger: Path, capsys: pytest.CaptureFixture[str]):
    assert run(["slo", "report", "--month", "2026-11", "--org", "acme"]) == 1
    said = capsys.readouterr().out
    assert "availability 88.888%: 1 of 9 failed" in said
    assert "BROKEN available: 88.888% of 90%, -11% of the error budget left" in said
    assert "Not in the ledger, see `penstock slo status`: first." in said
    assert "rival" not in said


def test_the_report_is_a_page(ledger: Path, capsys: pytest.CaptureFixture[str]):
    assert run(["slo", "report", "--month", "2026-11", "--html", "report.html"]) == 1
    page = Path("report.html").read_text()
    assert "88.888%" in page
    assert "<title>Service levels</title>" in page


def test_a_month_without_requests_breaks_no_promise(ledger: Path, capsys: pytest.CaptureFixture[str]):
    assert run(["slo", "report", "--month", "2027-02"]) == 0
    assert "no request of this month" in capsys.readouterr().out
    assert run(["slo", "report", "--month", "2027-13"]) == 2


def test_the_rules_are_of_the_file(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert run(["slo", "rules", "--every", "5"]) == 0
    groups = yaml.safe_load(capsys.readouterr().out)["groups"]
    assert [group["name"] for group in groups][:3] == [
        "penstock-slo-available",
        "penstock-slo-quick",
        "penstock-slo-first",
    ]
    assert (groups[0]["interval"], groups[-1]["interval"]) == ("10s", "5s")
    assert [rule["alert"] for rule in groups[-1]["rules"]] == [rule.name for rule in RULES]


def test_what_sloth_has_is_imported(folder: Path, capsys: pytest.CaptureFixture[str]):
    Path("sloth.yaml").write_text(
        "version: prometheus/v1\nservice: s\n"
        "slos: [{name: a, objective: 99, sli: {raw: {error_ratio_query: 'r{{.window}}'}}}]\n"
    )
    assert run(["slo", "import", "sloth.yaml"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == {
        "slos": {"s-a": {"objective": "99%", "queries": {"errors": "r{{.window}}"}}}
    }
    Path("sloth.yaml").write_text("nothing: here\n")
    assert run(["slo", "import", "sloth.yaml"]) == 2
    assert run(["slo", "import", "absent.yaml"]) == 2


@pytest.fixture
def gateway() -> Iterator[tuple[str, list[bytes]]]:
    """The address of something that answers with these metrics."""
    pages: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/metrics" else 404)
            self.end_headers()
            self.wfile.write(pages[-1])

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", pages
        server.shutdown()


def metrics(*, bad: int, slos: tuple[Slo, ...]) -> bytes:
    """What a gateway says that has seen a thousand requests."""
    registry = Registry()
    watch = SloWatch(registry.catalogue.values(), slos, RULES)
    registry.counter("penstock_requests_total").labels("chat", "chat.completions", "2xx", "none").inc(1000)
    failures = registry.counter("penstock_failures_total")
    failures.labels("chat", "request", "upstream_error", "transient", "provider").inc(bad)
    watch.observe(registry.snapshot(), 1_800_000_000.0)
    watch.show(registry)
    return Exposition().render(registry.snapshot())


def test_status_says_how_much_is_left(gateway: tuple[str, list[bytes]], capsys: pytest.CaptureFixture[str]):
    url, pages = gateway
    pages.append(metrics(bad=1, slos=(Slo('chat "a"', 0.99), Slo("other", 0.9))))
    assert run(["slo", "status", "--url", url]) == 0
    said = capsys.readouterr().out
    assert 'chat "a"' in said
    assert "90.0%" in said
    assert "No alert is active." in said


def test_status_is_one_when_an_alert_is_active(gateway: tuple[str, list[bytes]], capsys: pytest.CaptureFixture[str]):
    url, pages = gateway
    pages.append(metrics(bad=500, slos=(Slo("chat", 0.99),)))
    assert run(["slo", "status", "--url", url, "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["levels"][0]["burns"]["1h"] == pytest.approx(50)
    assert said["alerts"]["SloBudgetBurning (page)"] == 1


def test_status_without_promises_or_without_a_gateway_says_so(
    gateway: tuple[str, list[bytes]], capsys: pytest.CaptureFixture[str]
):
    url, pages = gateway
    pages.append(metrics(bad=0, slos=()))
    assert run(["slo", "status", "--url", url]) == 0
    assert "Nothing is promised there" in capsys.readouterr().out
    pages.append(b"up 1\n")
    assert run(["slo", "status", "--url", url]) == 1
    assert run(["slo", "status", "--url", f"{url}/elsewhere"]) == 1
    assert run(["slo", "status", "--url", "localhost"]) == 2
