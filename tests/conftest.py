"""Rules for every test: no network beyond this machine, no secret in any output, Hypothesis profiles, and a seed that a
failing run prints."""

from __future__ import annotations

import ipaddress
import os
import secrets
import socket
from collections.abc import Generator, Iterator
from random import Random
from typing import Any

import pytest
import uvloop
from hypothesis import settings

from tests import canaries

settings.register_profile("dev", deadline=None, print_blob=True)
settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")

SEED = int(os.environ.get("PENSTOCK_SEED") or secrets.randbits(32))
os.environ["PENSTOCK_SEED"] = str(SEED)  # for the processes that pytest-xdist starts

BEFORE = {"clients": "upstreams", "conformance": "upstreams"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """By rooms; other people's code late, when `make test` has installed it, but not last, as its tests are long."""

    def place(item: pytest.Item) -> str:
        room = item.path.parent.name
        return BEFORE.get(room, room)

    items.sort(key=place)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if terminalreporter.stats.get("failed"):
        line = f"random tests: PENSTOCK_SEED={SEED} repeats this run; Hypothesis repeats its own failures"
        terminalreporter.write_line(line)


@pytest.fixture(scope="session", autouse=True)
def _watched_doors() -> Iterator[None]:
    with canaries.watched():
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fails a test whose outputs have a word of `canaries`."""
    report = yield
    if report.when == "teardown":
        found = canaries.planted_in(item, report)
        if found:
            report.outcome = "failed"
            report.longrepr = f"this test told what nobody may tell: {', '.join(sorted(set(found)))}"
    return report


@pytest.fixture
def rng() -> Random:
    """Random numbers that another run can repeat: a run with failures prints its seed."""
    return Random(SEED)


class BeyondLoopback(RuntimeError):
    """A test tried to reach something that is not this machine."""


def _on_this_machine(host: object) -> bool:
    if isinstance(host, bytes):
        host = host.decode()
    if not isinstance(host, str) or host in ("", "localhost"):
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


@pytest.fixture(scope="session")
def _attempts_to_leave() -> Iterator[list[str]]:
    """Replaces every door to the network for the whole session; what was tried is in the list."""
    tried: list[str] = []

    def check(host: object) -> None:
        if isinstance(host, str) and host.endswith(".invalid"):  # RFC 2606: never resolves, so tests may ask for it
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if not _on_this_machine(host):
            tried.append(repr(host))
            raise BeyondLoopback(f"tests may not reach {host!r}: only this machine. Use a server on 127.0.0.1, port 0.")

    def guarded_socket(verb: str) -> Any:
        original = getattr(socket.socket, verb)

        def call(self: socket.socket, address: Any) -> Any:
            if self.family in (socket.AF_INET, socket.AF_INET6):
                check(address[0])
            return original(self, address)

        return call

    original_getaddrinfo = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        check(host)
        return original_getaddrinfo(host, *args, **kwargs)

    original_create_connection = uvloop.Loop.create_connection

    # uvloop connects and resolves in libuv, out of reach of the socket module.
    def create_connection(self: Any, factory: Any, host: Any = None, *args: Any, **kwargs: Any) -> Any:
        check(host)
        return original_create_connection(self, factory, host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded_socket("connect"))
        patch.setattr(socket.socket, "connect_ex", guarded_socket("connect_ex"))
        patch.setattr(socket, "getaddrinfo", getaddrinfo)
        patch.setattr(uvloop.Loop, "create_connection", create_connection)
        yield tried


@pytest.fixture(autouse=True)
def _no_network(_attempts_to_leave: list[str]) -> Iterator[None]:
    """Fails the test that tried to leave this machine, even when the code under test swallowed the refusal."""
    _attempts_to_leave.clear()
    yield
    tried = list(_attempts_to_leave)
    _attempts_to_leave.clear()
    assert not tried, f"this test tried to reach {', '.join(tried)}"
