"""`penstock explain` and `penstock route train`."""

import json
import random
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import msgspec
import pytest

from penstock.core.request import Priority
from penstock.routing.decision import (
    Asked,
    Candidate,
    Decision,
    Explained,
    Explanation,
    Refusal,
    ReplicaChoice,
    Waiting,
)
from penstock.routing.difficulty import Classifier

EXPLAINED = Explanation(
    Decision(("local",), "chat", why=("rule 1: avoids cheap",), dropped={"cheap": "rule 1 avoids it"}),
    (
        Candidate("local", 1, "", True, True, "eu", 2_048, 12_000, 0.25),
        Candidate("cheap", None, "rule 1 avoids it", True, False, "", None, None, None),
    ),
    (Asked("rule 1", "stream", True), Asked("rule 2", "json", None)),
    {"stream": True},
    (ReplicaChoice("local/0", "local", True, 0.02, 0.2, 12, ""),
     ReplicaChoice("local/1", "local", False, 0.5, None, None, "waits")),
)  # fmt: skip


class Gateway:
    def __init__(self, body: bytes) -> None:
        self.asked: list[tuple[str, dict, dict]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                sent = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.asked.append((self.path, sent, dict(self.headers)))
                self.send_response(200)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def gateway(request):
    gateway = Gateway(msgspec.json.encode(getattr(request, "param", EXPLAINED)))
    yield gateway
    gateway.close()


def test_the_decision_is_told_with_everything_that_lost(penstock, gateway):
    ran = penstock("explain", "--url", gateway.url, "--model", "chat", "Why", "so?", "--header", "X-Tier: gold")
    assert ran.code == 0
    assert ran.out.splitlines()[:2] == ["chat: local", "  rule 1: avoids cheap"]
    assert "  1  local       $0.000012  250 ms       2,048   eu inside\n" in ran.out
    assert "  -  cheap       ?          ?            ?       ?          rule 1 avoids it\n" in ran.out
    assert "  >  local/0  20.0 ms   200.0 ms  12\n" in ran.out
    assert "  holds      rule 1  stream\n  not asked  rule 2  json\n" in ran.out
    path, body, headers = gateway.asked[0]
    assert path == "/v1/route/explain"
    assert body == {"messages": [{"role": "user", "content": "Why so?"}], "model": "chat"}
    assert headers["x-tier"] == "gold"


PRESSED = Explained(
    Decision(("local",), "chat"),
    (),
    (),
    {},
    degraded=("max_tokens=9",),
    queue=(Waiting(Priority.HIGH, 0, 0.0), Waiting(Priority.NORMAL, 1_200, 3.25)),
)
SPOKEN = Explained(Decision((), "chat"), (), (), {}, degraded=("static",), say="Later.")


@pytest.mark.parametrize(
    ("gateway", "told"),
    [
        (PRESSED, ["chat: local", "  given up: max_tokens=9", "", "  normal  1,200 waiting  sent in 3.2 s"]),
        (SPOKEN, ["Answered with this text: Later.", "  given up: static"]),
    ],
    indirect=["gateway"],
)
def test_what_is_given_up_and_who_waits_is_told(penstock, gateway, told):
    ran = penstock("explain", "--url", gateway.url, "--model", "chat", "Hi")
    lines = [line for line in ran.out.splitlines() if "deployment" not in line]
    assert (ran.code, [line for line in lines if line]) == (0, [line for line in told if line])


def test_a_body_is_asked_about_as_it_is_in_the_file(penstock, gateway, tmp_path):
    file = tmp_path / "request.json"
    file.write_text('{"model": "other", "messages": [], "tools": []}')
    ran = penstock("explain", "--url", gateway.url, "--file", str(file), "--json", "--max-tokens", "9")
    assert msgspec.json.decode(ran.out, type=Explanation) == EXPLAINED
    assert ran.out.startswith('{"decision":{')
    assert gateway.asked[0][1] == {"model": "other", "messages": [], "tools": [], "max_tokens": 9}


REFUSED = Explanation(Decision((), "chat", refusal=Refusal(503, "no_route", "Nobody.")), (), (), {})


@pytest.mark.parametrize("gateway", [REFUSED], indirect=True)
def test_a_refusal_is_told_and_is_the_exit_code(penstock, gateway):
    ran = penstock("explain", "--url", gateway.url, "--model", "chat", "Hi")
    assert (ran.code, ran.out.splitlines()[0]) == (1, "Refused with 503 no_route: Nobody.")


@pytest.mark.parametrize("gateway", [{"object": "list"}], indirect=True)
def test_a_gateway_that_explains_nothing_is_told(penstock, gateway):
    ran = penstock("explain", "--url", gateway.url, "--model", "chat", "Hi")
    assert ran.code == 1
    assert "does not explain its routes" in ran.err


def test_words_or_a_file_must_be_given_and_headers_have_a_colon(penstock):
    assert "say what would be asked" in penstock("explain").err
    assert 'such as "x-tier: gold"' in penstock("explain", "--model", "m", "Hi", "--header", "x").err


# --- training ---


def labels(n: int) -> str:
    rng, lines = random.Random(1), []
    for i in range(n):
        hard = rng.random() < 0.5
        text = f"Prove thing {i} by induction." if hard else f"What is thing {i}?"
        lines.append(
            json.dumps(
                {"prompt": text, "hard": hard}
                if i % 2
                else {"messages": [{"role": "user", "content": text}], "hard": hard}
            )
        )
    return "\n".join(lines)


def test_training_says_how_well_it_does_on_what_it_has_not_seen(penstock, tmp_path):
    (tmp_path / "l.jsonl").write_text(labels(200))
    out = tmp_path / "c.json"
    ran = penstock("route", "train", str(tmp_path / "l.jsonl"), "--out", str(out))
    assert ran.code == 0, ran.err
    assert "measured on 40 that were kept aside" in ran.out
    assert "accuracy  1.000" in ran.out
    assert Classifier.read(out.read_text()).trained["examples"] == 160
    assert "induction" not in out.read_text()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("nonsense", "l.jsonl:1: is not a JSON object"),
        ('{"prompt": "x"}', "l.jsonl:1: `hard` must be true or false"),
        ('{"hard": true}', "l.jsonl:1: needs `messages` or a `prompt`"),
        ('{"prompt": "x", "hard": true, "max_tokens": "y"}', "`max_tokens` must be a whole number"),
        ('{"prompt": "x", "hard": true}', "has 1 labelled requests; at least 50"),
        ("\n".join(['{"prompt": "x", "hard": true}'] * 60), "are all alike"),
    ],
)
def test_labels_that_cannot_be_used_are_told_with_their_line(penstock, tmp_path, line, says):
    (tmp_path / "l.jsonl").write_text(line)
    ran = penstock("route", "train", str(tmp_path / "l.jsonl"), "--out", str(tmp_path / "c.json"))
    assert ran.code == 2
    assert says in ran.err
    assert not (tmp_path / "c.json").exists()
