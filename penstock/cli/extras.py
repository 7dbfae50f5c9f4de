"""Asks for optional packages before anything starts, so that a missing one is a sentence and not an ImportError."""

from __future__ import annotations

import importlib.util
from typing import Final

from penstock.cli.mistake import Mistake

ENGINE_PACKAGES: Final = ("jinja2", "numpy", "tokenizers")


def need_kv_events() -> None:
    """Raises `Mistake` when KV events can be neither published nor heard here."""
    if importlib.util.find_spec("zmq") is None:
        raise Mistake(
            "KV events need pyzmq, and this installation has not. Install it with: pip install 'penstock[kv-events]'"
        )


def need_engine() -> None:
    """Raises `Mistake` naming the extra to install when the embedded engine cannot run here."""
    missing = [name for name in ENGINE_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise Mistake(
            f"the embedded engine needs {', '.join(missing)}, and this installation has not. "
            "Install them with: pip install 'penstock[engine]'"
        )
