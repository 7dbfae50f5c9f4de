"""The console of a real server with the bundled model behind it: what is done at the gateway is what is seen here."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.console.browser.conftest import Eye, Opener

pytestmark = pytest.mark.journey

ROOT = Path(__file__).resolve().parents[3]
SECRETS = {name: f"sk-{name}-of-the-real-server" for name in ("ops", "web", "lab")}
DIGESTS = {name: sha256(secret.encode()).hexdigest() for name, secret in SECRETS.items()}
FILE = f"""\
server: {{ port: %d }}
models: {{ chat: {{ deployments: [tiny] }}, deep: {{ deployments: [tiny] }} }}
deployments: {{ tiny: {{ model: tiny, price: {{ input: $0.15/M, output: $0.60/M }} }} }}
organisations: {{ acme: {{ teams: {{ search: {{}} }} }}, globex: {{}} }}
keys:
  - {{ id: web, org: acme, team: search, sha256: {DIGESTS["web"]} }}
  - {{ id: lab, org: globex, sha256: {DIGESTS["lab"]} }}
limits: {{ calm: {{ requests: 600/m, per: key }} }}
store: {{ database: penstock.db }}
admin: {{ port: %d, keys: [{{ id: ops, role: owner, sha256: {DIGESTS["ops"]} }}] }}
"""


def free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]


class Real:
    def __init__(self, gateway: int, admin: int) -> None:
        self.gateway, self.admin = gateway, admin
        self.sent: list[str] = []  # ids of requests

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.admin}"

    def ask(self, port: int, method: str, path: str, body: Any = None, key: str = "") -> tuple[int, Any, str]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {SECRETS[key]}"} if key else {})
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, data, answer.headers.get("x-request-id", "")

    def chat(self, words: str, model: str = "chat", key: str = "web", *, stream: bool = False) -> str:
        """The id of the request."""
        body = {"model": model, "messages": [{"role": "user", "content": words}], "max_tokens": 24, "stream": stream}
        status, data, request_id = self.ask(self.gateway, "POST", "/v1/chat/completions", body, key)
        assert status == 200, data
        self.sent.append(request_id)
        return request_id

    def costs(self, by: str) -> Any:
        status, data, _ = self.ask(self.admin, "GET", f"/admin/v1/costs?by={by}", key="ops")
        assert status == 200
        return json.loads(data)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    folder = tmp_path_factory.mktemp("real")
    world = Real(*free_ports())
    (folder / "penstock.yaml").write_text(FILE % (world.gateway, world.admin))
    command = [sys.executable, "-m", "penstock.cli.main", "serve", "--config", "penstock.yaml"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
    try:
        for _ in range(200):
            try:
                process.wait(0.2)
            except subprocess.TimeoutExpired:
                if ready(world):
                    break
            else:
                raise AssertionError((folder / "log").read_text())
        for n in range(6):
            world.chat(f"Hello number {n}", model=("chat", "deep")[n % 2], key=("web", "lab")[n % 3 == 0])
        yield world
    finally:
        process.terminate()
        process.wait(40)


def ready(world: Real) -> bool:
    try:
        return world.ask(world.gateway, "GET", "/readyz")[0] == 200
    except OSError:
        return False


@pytest.fixture
def eye(window: Opener, real: Real) -> Eye:
    one = window(root=real.url, ticking=True)
    one.enter(SECRETS["ops"])
    one.page.wait_for_selector(".shell")
    return one


def test_the_first_address_leads_to_the_console(window: Opener, real: Real):
    eye = window(root=real.url, ticking=True)
    eye.page.goto(real.url)
    eye.see("Sign in to Penstock")


def test_a_request_appears_while_somebody_looks_and_opens_with_its_times(eye: Eye, real: Real):
    eye.open("live")
    eye.see("live")
    request = real.chat("What do you see?", stream=True)
    eye.page.get_by_role("link", name=f"…{request[-8:]}").click()
    eye.see("Where its time went")
    fall = eye.page.locator(".fall").inner_text()
    assert "Admission" in fall and "Try 1: tiny/0" in fall and "Tokens" in fall
    assert request in eye.page.locator("main").inner_text()
    used = eye.page.locator("table.used").inner_text()
    assert "Per million" in used and "$0.15" in used and "$0.60" in used


def test_the_list_holds_every_request_that_was_sent(eye: Eye, real: Real):
    eye.open("requests")
    eye.page.get_by_role("link", name=f"…{real.sent[-1][-8:]}").wait_for()
    assert {f"…{one[-8:]}" for one in real.sent} <= {row[0] for row in eye.rows("Requests")}


def test_the_overview_counts_the_requests(eye: Eye):
    eye.page.get_by_role("region", name="Models", exact=True).wait_for()
    assert {row[0] for row in eye.rows("Models")} >= {"chat", "deep"}
    eye.page.locator(".chart canvas").nth(3).wait_for()


def test_the_pivot_is_the_ledger(eye: Eye, real: Real):
    for by in ("model", "org", "key_id"):
        eye.open(f"cost?by={by}")
        eye.page.wait_for_selector("[data-nanos]")
        sums = (
            "rows => Object.fromEntries(rows.map(row =>"
            " [row.cells[0].innerText, Number(row.querySelector('[data-nanos]').dataset.nanos)]))"
        )
        shown = eye.page.locator("[aria-label='Cost by group'] tbody tr").evaluate_all(sums)
        assert shown == {one["group"][by] or "none": one["cost_nanos"] for one in real.costs(by)["items"]}
        assert min(shown.values()) > 0


def test_a_key_that_is_made_here_asks_two_models_in_the_playground(eye: Eye):
    eye.open("keys?org=acme&team=search")
    eye.page.get_by_role("button", name="New key").click()
    eye.page.locator("dialog").get_by_role("button", name="New key").click()
    eye.see("Copy it now")
    secret = eye.page.locator("dialog code").inner_text()
    eye.open("playground?models=chat,deep")
    eye.page.get_by_label("Message", exact=True).fill("Hi!")
    eye.page.get_by_label("Gateway key").fill(secret)
    answers = eye.page.locator(".answer footer", has_text="Finished")
    for _ in range(20):  # gateways follow the database within seconds
        eye.page.get_by_role("button", name="Ask 2 models").click()
        eye.page.wait_for_selector(".answer footer:has-text('Finished'), .answer .fault")
        if not eye.page.locator(".answer .fault").count():
            break
        eye.page.wait_for_timeout(500)
    eye.allow("401", at_least=0)
    answers.nth(1).wait_for()
    assert all(text.strip() for text in eye.page.locator(".answer .text").all_inner_texts())
    eye.page.get_by_role("link", name="See its request").first.click()
    eye.see("Where its time went")
    eye.allow("404", at_least=0)


def test_routing_is_explained_by_the_gateway_itself(eye: Eye):
    eye.open("explain")
    eye.page.get_by_label("Gateway key").fill(SECRETS["web"])
    eye.page.get_by_role("button", name="Explain").click()
    eye.see("It would go to tiny/0")
    assert [row[0] for row in eye.rows("Replicas")] == ["tiny/0"]


@pytest.mark.parametrize(
    ("view", "text"),
    [
        ("models", "Replicas that work"), ("limits", "calm"), ("keys", "web"), ("audit", "acts"),
        ("config", "penstock.yaml"), ("config?tab=try", "A configuration file"),
    ],
)  # fmt: skip
def test_every_other_view_opens_without_a_complaint(eye: Eye, view: str, text: str):
    eye.open(view)
    eye.see(text)
    eye.until("!document.querySelector('.loading, .fault')")


def test_no_secret_is_in_any_view(eye: Eye):
    for view in ("keys", "config", "audit", "limits"):
        eye.open(view)
        eye.until("!document.querySelector('.loading')")
        page = eye.page.content()
        assert not any(
            secret in page or digest in page for secret, digest in zip(SECRETS.values(), DIGESTS.values(), strict=True)
        )
