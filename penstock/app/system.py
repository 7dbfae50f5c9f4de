"""What only the operating system can give: entropy and the event loop."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections.abc import Callable
from random import Random


def random_generator() -> Random:
    """Seeded by the system: for jitter and choices among equals, not for secrets."""
    return Random(int.from_bytes(os.urandom(16), "big"))


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where it is installed (twice the requests per core), else None: the standard one."""
    if importlib.util.find_spec("uvloop") is None:
        return None
    import uvloop

    return uvloop.new_event_loop
