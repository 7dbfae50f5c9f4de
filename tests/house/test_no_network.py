"""The guard in tests/conftest.py guards."""

import asyncio
import socket

import pytest
import uvloop


@pytest.fixture
def forgiven(_attempts_to_leave: list[str], _no_network: None) -> list[str]:
    """The record of attempts, for tests that make some on purpose and clear it."""
    return _attempts_to_leave


def test_a_test_cannot_connect_beyond_loopback(forgiven):
    with socket.socket() as sock, pytest.raises(RuntimeError, match="only this machine"):
        sock.connect(("192.0.2.1", 80))
    assert forgiven == ["'192.0.2.1'"]
    forgiven.clear()


def test_a_test_cannot_resolve_names(forgiven):
    with pytest.raises(RuntimeError, match="only this machine"):
        socket.getaddrinfo("example.com", 80)
    forgiven.clear()


def test_a_test_cannot_leave_through_uvloop(forgiven):
    async def leave() -> None:
        await asyncio.get_running_loop().create_connection(asyncio.Protocol, "192.0.2.1", 80)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, pytest.raises(RuntimeError, match="only this"):
        runner.run(leave())
    forgiven.clear()


def test_names_that_never_resolve_may_be_asked_for():
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo("replica.invalid", 80)


def test_loopback_is_open():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        pass
