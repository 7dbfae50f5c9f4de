"""One scripted upstream for all of these tests, and what becomes of them where the clients cannot be installed."""

import os
from collections.abc import Iterator

import pytest

from tests.clients.environments import Unavailable, python, sdist
from tests.conformance.upstream import Upstream, upstream


@pytest.fixture(scope="session")
def sdks() -> None:
    """The SDKs and their tests are here. Without them there is nothing to run, which only a person may overlook."""
    try:
        for name in ("openai", "anthropic"):
            sdist(name)
        python("python")
    except Unavailable as problem:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"the SDKs cannot be installed here: {problem}")


@pytest.fixture(scope="session")
def provider() -> Iterator[Upstream]:
    with upstream() as running:
        yield running
