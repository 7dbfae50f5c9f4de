"""`deploy/observability` with the real Prometheus and Alertmanager: scraped, alert fired, somebody told, exemplar read
back.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from penstock.cli.main import run as penstock
from penstock.quality.alerts import RULES
from penstock.wire.trace_context import trace_id_of
from tests.observability.servers import Api, binary, free_port, promtool

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "observability"
TRACE = "0af7651916cd43dd8448eb211c80319c"

# beside the demo's: a deployment that is not there, whose alert does not wait, and a place for traces
CONFIG = """\
models:
  tiny: {{ deployments: [local] }}
  gone: {{ deployments: [nowhere] }}
deployments:
  local: {{ model: tiny }}
  nowhere: {{ engine: "http://127.0.0.1:{closed}" }}
server: {{ access_log: "off" }}
store: {{ database: "off" }}
telemetry:
  traces: {{ away: {{ endpoint: "http://127.0.0.1:{closed}/v1/traces" }} }}
  sampling: {{ ratio: 100% }}
slos:
  available: {{ of: availability, objective: 99.9% }}
  first-token: {{ of: ttft, within: 2s, objective: 99% }}
alerts:
  rules:
    NoReplicaReady: {{ for: 1s }}
"""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_observability", FOLDER / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Told:
    """What was posted here."""

    def __init__(self) -> None:
        outer = self
        self.alerts: list[dict[str, Any]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.alerts += json.loads(self.rfile.read(int(self.headers["content-length"])))["alerts"]
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]


@pytest.fixture(scope="module")
def told() -> Iterator[Told]:
    told = Told()
    with told.server:
        threading.Thread(target=told.server.serve_forever, daemon=True).start()
        yield told
        told.server.shutdown()


class World:
    def __init__(self, penstock: Api, prometheus: Api, alertmanager: Api, told: Told) -> None:
        self.penstock, self.prometheus, self.alertmanager, self.told = penstock, prometheus, alertmanager, told


@pytest.fixture(scope="module")
def world(script: ModuleType, told: Told, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    binary("prometheus")
    binary("prometheus-alertmanager", "alertmanager")
    folder = tmp_path_factory.mktemp("observability")
    ports = script.Ports(free_port(), free_port(), free_port(), told.port)
    script.prepare(folder, ports)
    (folder / "penstock.yaml").write_text(CONFIG.format(closed=free_port()))
    rules = folder / "penstock.rules.yml"
    config = str(folder / "penstock.yaml")
    assert penstock(["slo", "rules", "--config", config, "--every", "1", "--output", str(rules)]) == 0
    for name, usual, fast in (
        ("prometheus.yml", "15s", "1s"),
        ("alertmanager.yml", "group_wait: 10s", "group_wait: 1s"),
    ):
        text = (folder / name).read_text()
        assert usual in text
        (folder / name).write_text(text.replace(usual, fast))
    apis = [Api(port) for port in ports[:3]]
    with script.started(script.commands(folder, ports), folder):
        world = World(*apis, told)
        soon(lambda: world.penstock.get("/healthz"), folder / "penstock.log")
        soon(lambda: world.prometheus.get("/-/ready"), folder / "prometheus.log")
        soon(lambda: world.alertmanager.get("/-/ready"), folder / "alertmanager.log")
        yield world


def soon(what: Callable[[], Any], log: Path | None = None) -> Any:
    """Its answer, when there is one."""
    waiting = threading.Event()
    for _ in range(400):
        if answer := what():
            return answer
        waiting.wait(0.1)
    raise AssertionError(f"not within 40 s{': ' + log.read_text()[-2000:] if log else ''}")


def ask(port: int, **headers: str) -> str:
    """The id of the request."""
    body = json.dumps(
        {"model": "tiny", "stream": True, "max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}]}
    )
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json", **headers})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
        return answer.headers["x-request-id"]


def test_the_committed_rules_are_what_the_verb_writes(tmp_path: Path):
    fresh = tmp_path / "rules.yml"
    assert penstock(["slo", "rules", "--config", str(FOLDER / "penstock.yaml"), "--output", str(fresh)]) == 0
    assert fresh.read_text() == (FOLDER / "penstock.rules.yml").read_text(), "write it anew with `penstock slo rules`"


def test_prometheus_and_alertmanager_take_the_committed_files():
    checked = promtool("check", "config", FOLDER / "prometheus.yml")
    assert checked.returncode == 0, checked.stderr
    assert "1 rule files found" in checked.stdout


@pytest.mark.journey
@pytest.mark.timeout(180)
def test_it_is_scraped_and_the_numbers_are_those_of_the_requests(world: World):
    soon(lambda: world.prometheus.query('penstock_replica_ready{deployment="local"} == 1'))
    for _ in range(5):
        ask(world.penstock.port)
    assert soon(lambda: world.prometheus.query('up{job="penstock"} == 1'))
    soon(lambda: world.prometheus.query('sum(penstock_requests_total{model="tiny"}) == 5'))
    soon(lambda: world.prometheus.query('penstock_time_to_first_token_seconds_bucket{le="2.0", model="tiny"} == 5'))
    groups = world.prometheus.get("/api/v1/rules")["data"]["groups"]
    assert {rule["name"] for group in groups for rule in group["rules"]} >= {rule.name for rule in RULES}
    assert all(rule["health"] == "ok" or rule["health"] == "unknown" for group in groups for rule in group["rules"])


@pytest.mark.journey
@pytest.mark.timeout(180)
def test_an_alert_fires_and_the_people_are_told(world: World):
    def arrived() -> list[dict[str, Any]]:
        return [one for one in world.told.alerts if one["labels"]["alertname"] == "NoReplicaReady"]

    (first, *_) = soon(arrived)
    assert first["status"] == "firing"
    assert first["labels"]["deployment"] == "nowhere"
    assert first["labels"]["severity"] == "page"
    assert first["annotations"]["summary"] == "No replica of nowhere is ready."
    active = world.alertmanager.get("/api/v2/alerts")
    assert "NoReplicaReady" in {one["labels"]["alertname"] for one in active}


@pytest.mark.journey
@pytest.mark.timeout(180)
def test_the_trace_of_a_request_is_found_from_the_bucket_that_it_fell_into(world: World):
    soon(lambda: world.prometheus.query('penstock_replica_ready{deployment="local"} == 1'))
    id = ask(world.penstock.port, traceparent=f"00-{TRACE}-b7ad6b7169203331-01")

    def exemplars() -> dict[str, tuple[str, float]]:
        """By trace: the model of the bucket, and how long it took."""
        path = "/api/v1/query_exemplars?query=penstock_request_duration_seconds_bucket&start=0&end=9999999999"
        answer = world.prometheus.get(path)
        return {
            one["labels"]["trace_id"]: (series["seriesLabels"]["model"], float(one["value"]))
            for series in (answer or {"data": []})["data"]
            for one in series["exemplars"]
        }

    model, took = soon(lambda: exemplars().get(TRACE))
    assert model == "tiny"
    assert 0.0 < took < 30.0
    assert trace_id_of(id) not in exemplars()  # its caller's trace, and not one of our own
