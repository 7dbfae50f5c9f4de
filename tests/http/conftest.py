"""Every test that touches the network runs on both event loops: they differ in when they write and how they close."""

import asyncio
import inspect
from asyncio import sslproto
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

ABORTS_TWICE = "is not None" in inspect.getsource(sslproto._SSLProtocolTransport.abort)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if (
            not ABORTS_TWICE
            and "tls" in item.name
            and item.name.endswith(("[asyncio]", "[asyncio-pictures.example-True]"))
        ):
            item.add_marker(
                pytest.mark.skip(reason="the asyncio of Python 3.11.2 fails when TLS is aborted after its end")
            )


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Runs a coroutine to its end; what the loop itself complains about fails the test."""

    def run(main: Coroutine[Any, Any, Any]) -> Any:
        complaints: list[dict[str, Any]] = []

        async def listen() -> Any:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
            return await main

        with asyncio.Runner(loop_factory=request.param) as runner:
            result = runner.run(listen())
        assert not complaints, complaints
        return result

    return run
