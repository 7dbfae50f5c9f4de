"""What only the operating system can give: entropy, the event loop and memory."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import importlib.util
import logging  # noqa: TID251  only to silence a library
import os
from collections.abc import Callable
from random import Random
from typing import Final

# malloc.h of glibc
_M_TRIM_THRESHOLD: Final = -1
_M_TOP_PAD: Final = -2
_M_MMAP_THRESHOLD: Final = -3


def random_generator() -> Random:
    """Seeded by the system: for jitter and choices among equals, not for secrets."""
    return Random(int.from_bytes(os.urandom(16), "big"))


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where it is installed (twice the requests per core), else None: the standard one."""
    if importlib.util.find_spec("uvloop") is None:
        return None
    import uvloop

    return uvloop.new_event_loop


def quiet_libraries() -> None:
    """python-multipart logs every malformed form: callers must not be able to write to our terminal."""
    logging.getLogger("python_multipart").addHandler(logging.NullHandler())
    logging.getLogger("python_multipart").propagate = False


def settle_memory() -> None:
    """Tell the collector and the allocator what kind of process this is. Once everything that stays has been made.

    What stays is never looked at again by the collector, and what a request leaves is nearly all freed by counting, so
    collections may be rare. glibc returns the top of its heap at every chance and asks for it again with page faults;
    keeping up to 64 MB of it makes a 100 kB prompt a quarter cheaper. Elsewhere than glibc this changes nothing.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, megabytes in ((_M_TRIM_THRESHOLD, 64), (_M_MMAP_THRESHOLD, 32), (_M_TOP_PAD, 4)):
            mallopt(parameter, megabytes << 20)
