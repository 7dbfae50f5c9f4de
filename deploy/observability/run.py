"""Starts the demo with Prometheus and Alertmanager beside it, all on loopback, and prints the alerts that arrive.

    apt-get install prometheus prometheus-alertmanager
    .venv/bin/python deploy/observability/run.py

What they keep is in `--folder`. Ctrl-C ends all of them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
FILES = ("penstock.yaml", "prometheus.yml", "alertmanager.yml", "penstock.rules.yml")


class Ports(NamedTuple):
    penstock: int = 8080
    prometheus: int = 9090
    alertmanager: int = 9093
    receiver: int = 9099


def prepare(folder: Path, ports: Ports) -> None:
    """Copies of the files here, with these ports in them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        text = (HERE / name).read_text(encoding="utf-8")
        for usual, port in zip(Ports(), ports, strict=True):
            text = text.replace(f"127.0.0.1:{usual}", f"127.0.0.1:{port}")
        (folder / name).write_text(text, encoding="utf-8")


def commands(folder: Path, ports: Ports) -> dict[str, list[str]]:
    """Who is to be started, by name. Raises `LookupError` for a program that is not installed."""
    penstock = [sys.executable, "-m", "penstock.cli.main", "serve", "--insecure-dev"]
    return {
        "Alertmanager": [
            program("prometheus-alertmanager", "alertmanager"),
            f"--config.file={folder / 'alertmanager.yml'}",
            f"--storage.path={folder / 'alertmanager'}",
            f"--web.listen-address=127.0.0.1:{ports.alertmanager}",
            "--cluster.listen-address=",  # alone: no gossip
        ],
        "Prometheus": [
            program("prometheus"),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'prometheus'}",
            f"--web.listen-address=127.0.0.1:{ports.prometheus}",
            "--enable-feature=exemplar-storage",
        ],
        "Penstock": [*penstock, "--config", str(folder / "penstock.yaml"), "--port", str(ports.penstock)],
    }


def program(*names: str) -> str:
    for name in names:
        if (found := shutil.which(name)) is not None:
            return found
    raise LookupError(f"{names[0]} is not installed. On Debian: apt-get install prometheus prometheus-alertmanager")


class Receiver(BaseHTTPRequestHandler):
    """Prints what Alertmanager posts."""

    def do_POST(self) -> None:
        told = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.end_headers()
        for alert in told["alerts"]:
            state = alert["status"].upper()
            say(f"[{state}] {alert['labels']['alertname']}: {alert['annotations'].get('summary', '')}")

    def log_message(self, *_: object) -> None:
        """Nothing: the alerts are what is to be seen."""


@contextlib.contextmanager
def started(wanted: dict[str, list[str]], folder: Path) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """All of them, each with its own log in the folder; ended at the end, the last one first."""
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, command in wanted.items():
            with (folder / f"{name.lower()}.log").open("wb") as log:
                running[name] = subprocess.Popen(command, stdout=log, stderr=log)
        yield running
    finally:
        for process in reversed(running.values()):
            process.terminate()
        for process in running.values():
            process.wait(40)


def main() -> int:
    parser = argparse.ArgumentParser(description="The demo, with Prometheus and Alertmanager beside it.")
    parser.add_argument("--folder", type=Path, default=Path(".observability"), help="what they keep, and their logs")
    for name, port in Ports()._asdict().items():
        parser.add_argument(f"--{name}-port", type=int, default=port)
    asked = parser.parse_args()
    folder = asked.folder.resolve()
    ports = Ports(asked.penstock_port, asked.prometheus_port, asked.alertmanager_port, asked.receiver_port)
    try:
        wanted = commands(folder, ports)
        receiver = ThreadingHTTPServer(("127.0.0.1", ports.receiver), Receiver)
    except (LookupError, OSError) as problem:
        say(str(problem.args[0] if isinstance(problem, LookupError) else problem))
        return 1
    prepare(folder, ports)
    with receiver, started(wanted, folder) as running:
        say(f"Penstock      http://127.0.0.1:{ports.penstock}/metrics")
        say(f"Prometheus    http://127.0.0.1:{ports.prometheus}/alerts")
        say(f"Alertmanager  http://127.0.0.1:{ports.alertmanager}")
        say(f"Logs are in {folder}. Alerts appear here; stop one of the engines to see some. Ctrl-C ends it.")
        receiver.timeout = 1.0
        try:
            while all(process.poll() is None for process in running.values()):
                receiver.handle_request()
        except KeyboardInterrupt:
            return 0
        ended = next(name for name, process in running.items() if process.poll() is not None)
        say(f"{ended} ended by itself; {folder / f'{ended.lower()}.log'} says why.")
        return 1


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
