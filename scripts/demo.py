"""`make demo`: starts Penstock as a user would, asks it a few things so that something is seen, and leaves it running,
with a little traffic, so that there is something to look at in its console.

DEMO_SECONDS=20 stops it after that many seconds, with exit code 0. The server is a child process in the same terminal,
so Ctrl-C reaches both; this script only waits for it to finish what it was answering. What the server keeps is in a
directory that is removed in the end.
"""

from __future__ import annotations

import argparse
import errno
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from threading import Event, Thread

import msgspec

from penstock.cli.chat import printable, summary
from penstock.cli.conversation import Caller, CallFailed, Message
from penstock.core.clock import SystemClock
from penstock.core.keys import ENTROPY_BYTES, digest, mint

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "examples" / "demo.yaml"
MODEL = "tiny"
START_SECONDS = 60.0
QUESTIONS = (
    "What is continuous batching?",
    "What is a KV cache?",
    "Extract name and city as JSON: Hana is 34 years old and lives in Lisbon.",
    "What is hedging?",
)
USERS = ("ada", "ben", "chen", "dara", "eli")
FEATURES = ("search", "help", "help", "summaries")
EVERY = 2.0  # seconds between two requests of the traffic, on average


class DemoFailed(Exception):
    """Why there is no demo, and what to do."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Start Penstock with two replicas of a small model, and show it.")
    parser.add_argument("--port", default="8080", help="the port on 127.0.0.1")
    port_text = parser.parse_args().port
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever ends us means the server too
    try:
        port = number(port_text, "PORT", 1, 65_535)
        seconds = os.environ.get("DEMO_SECONDS")
        limit = number(seconds, "DEMO_SECONDS", 1, 86_400) if seconds else None
        return demo(port, limit)
    except DemoFailed as problem:
        say(f"\nNo demo: {problem}", sys.stderr)
        return 1


def demo(port: int, seconds: int | None) -> int:
    look_at_port(port)
    admin_port, key = free_port(port + 1), mint(os.urandom(ENTROPY_BYTES))
    with tempfile.TemporaryDirectory(prefix="penstock-demo-") as folder:
        config = Path(folder) / "penstock.yaml"
        config.write_text(f"""{CONFIG.read_text()}
admin:
  port: {admin_port}
  keys: [{{ id: demo, role: owner, sha256: {digest(key)} }}]
""")
        return show(config, port, seconds, console(f"http://127.0.0.1:{admin_port}/console", key))


def show(config: Path, port: int, seconds: int | None, console: str) -> int:
    clock = SystemClock()
    stop_at = None if seconds is None else clock.now() + seconds
    url = f"http://127.0.0.1:{port}"
    say("Starting Penstock with two replicas of its bundled model `tiny` ...")
    command = [sys.executable, "-m", "penstock.cli.main", "serve", "--config", str(config), "--port", str(port)]
    server = subprocess.Popen([*command, "--insecure-dev"], cwd=ROOT)
    try:
        wait_until_ready(server, url, clock)
        say(f"\nPenstock is ready on {url}")
        say("This is loopback development mode: no key is asked for, and only this machine can reach it.\n")
        ask_a_few_things(url, clock)
        say(how_to_go_on(url))
        say(console)
        say(f"Serving for {seconds} s in all." if seconds else "Serving until Ctrl-C.")
        with traffic(url, clock):
            try:
                code = server.wait(None if stop_at is None else max(0.0, stop_at - clock.now()))
            except subprocess.TimeoutExpired:
                say("Time is up; stopping.")
                stop(server)
                return 0
        raise DemoFailed(f"the server ended by itself with exit code {code}; what it said is above.")
    except KeyboardInterrupt:
        say("\nStopping; answers on their way may finish (Ctrl-C again ends them).")
        stop(server)
        return 0
    finally:
        if server.poll() is None:
            stop(server)


def look_at_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as problem:
            if problem.errno == errno.EADDRINUSE:
                raise DemoFailed(
                    f"port {port} is taken by another program. Take another one: make demo PORT={free_port()}"
                ) from None
            raise DemoFailed(f"port {port} cannot be used: {problem.strerror}. Try: make demo PORT=8080") from None


def free_port(first: int = 8081) -> int:
    for port in range(first, first + 100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
    return 9000


@contextmanager
def traffic(url: str, clock: SystemClock) -> Iterator[None]:
    """A few people who ask now and then, and say what they think of the answers."""
    over = Event()

    def go_on() -> None:
        rng, caller = Random(), Caller(url, None, clock)
        while not over.wait(rng.uniform(0, 2 * EVERY)):
            try:
                ask_as_somebody(caller, rng)
            except CallFailed as problem:
                if not over.wait(1.0):  # else it is being stopped
                    say(f"A request of the traffic failed: {problem}", sys.stderr)

    asking = Thread(target=go_on, daemon=True)
    asking.start()
    try:
        yield
    finally:
        over.set()


def ask_as_somebody(caller: Caller, rng: Random) -> None:
    """Raises `CallFailed`."""
    who = {"x-penstock-user": rng.choice(USERS), "x-penstock-feature": rng.choice(FEATURES)}
    question = {"role": "user", "content": rng.choice(QUESTIONS)}
    fields = {"model": MODEL, "max_tokens": rng.choice((40, 80, 120)), "messages": [question]}
    streamed = rng.random() < 0.7
    answer = caller.post("/v1/chat/completions", msgspec.json.encode({**fields, "stream": streamed}), who)
    if not streamed:
        opinion = {"request_id": msgspec.json.decode(answer)["id"], "thumbs": rng.choice(("up", "up", "up", "down"))}
        caller.post("/v1/feedback", msgspec.json.encode(opinion), who)


def wait_until_ready(server: subprocess.Popen[bytes], url: str, clock: SystemClock) -> None:
    give_up_at = clock.now() + START_SECONDS
    while clock.now() < give_up_at:
        try:
            code = server.wait(0.1)
        except subprocess.TimeoutExpired:
            if is_ready(url):
                return
            continue
        raise DemoFailed(f"the server did not start (exit code {code}); what it said is above.")
    raise DemoFailed(f"the server was not ready after {START_SECONDS:.0f} s.")


def is_ready(url: str) -> bool:
    # not urllib: it would ask a proxy from the environment for our own loopback
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=1)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def ask_a_few_things(url: str, clock: SystemClock) -> None:
    caller = Caller(url, None, clock)
    try:
        for question in QUESTIONS:
            say(f"> {question}")
            answer = caller.ask(MODEL, [Message("user", question)], max_tokens=120, temperature=0)
            for text in answer:
                sys.stdout.write(printable(text))
                sys.stdout.flush()
            say(f"\n  ({summary(answer)})\n")
    except CallFailed as problem:
        raise DemoFailed(f"the server is there, but a request failed: {problem}") from None
    finally:
        caller.close()


def how_to_go_on(url: str) -> str:
    return f"""\
Ask it yourself, from another terminal

  .venv/bin/penstock chat --url {url}

  curl -N {url}/v1/chat/completions -H 'content-type: application/json' -d '{{
    "model": "{MODEL}", "stream": true, "messages": [{{"role": "user", "content": "What is a replica?"}}]}}'

or from Python, with the client you have (pip install openai)

  from openai import OpenAI
  client = OpenAI(base_url="{url}/v1", api_key="not needed here")
  answer = client.chat.completions.create(model="{MODEL}", messages=[{{"role": "user", "content": "Hello"}}])
  print(answer.choices[0].message.content)

What it counts: {url}/metrics     How it was configured: examples/demo.yaml
"""


def console(address: str, key: str) -> str:
    return f"""\
Look inside: {address}
Sign in with the key {key} (made for this demo; it opens nothing else). The answers there
to {", ".join(dict.fromkeys(USERS))} are to traffic that the demo makes itself.
"""


def stop(server: subprocess.Popen[bytes]) -> None:
    """Ask it to finish; after a while, or a second Ctrl-C, end it."""
    try:
        server.terminate()
        server.wait(35)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        server.kill()
        server.wait()


def number(text: str, name: str, least: int, most: int) -> int:
    if not text.isdecimal() or not least <= int(text) <= most:
        raise DemoFailed(f"{name} must be a number from {least} to {most}, not {text!r}")
    return int(text)


def say(text: str, where: object = None) -> None:
    stream = sys.stderr if where is sys.stderr else sys.stdout
    stream.write(text + "\n")
    stream.flush()


if __name__ == "__main__":
    sys.exit(main())
