"""Installs what we compare with, each into a virtual environment of its own: `python bench/peers.py [NAME...]`.

The gateways are what `bench/gateway.py` measures beside Penstock; `transformers` (with torch) is the reference of
`bench/reference.py` and `bench/engine.py`, `guidellm` that of `bench/load_agreement.py`. What cannot be installed is
reported and left out of the tables.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

PEERS_DIR = Path(__file__).parent / ".build" / "peers"

REQUIREMENTS = Path(__file__).parent.parent / "models" / "requirements.txt"

# name -> what pip is asked for, and what it then brings
PEERS = {
    "vllm-router": (["vllm-router"], "vllm-router"),
    "sglang-router": (["sglang-router"], "sglang-router"),
    "litellm": (["litellm[proxy]"], "litellm"),
    # torch's CPU build, where the index has one: guidellm asks for torch and never computes with it here
    "guidellm": (["guidellm", "torch==2.13.0"], "guidellm"),
    "transformers": (["--requirement", str(REQUIREMENTS)], "torchrun"),
}


def program(name: str) -> Path:
    """Where the peer's command is, installed or not."""
    return PEERS_DIR / name / "bin" / PEERS[name][1]


def torch_python() -> str | None:
    """A Python with torch and transformers, once it has been installed."""
    python = PEERS_DIR / "transformers" / "bin" / "python"
    return str(python) if program("transformers").exists() else None


def version(name: str) -> str:
    """The installed version; "" when there is none."""
    python = PEERS_DIR / name / "bin" / "python"
    if not python.exists():
        return ""
    ask = f"import importlib.metadata; print(importlib.metadata.version({name!r}))"
    done = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def install(name: str) -> str | None:
    """None when it is there afterwards, else why it is not."""
    if program(name).exists():
        return None
    directory = PEERS_DIR / name
    venv.create(directory, with_pip=True, clear=True)
    command = [directory / "bin" / "pip", "install", "--quiet", "--prefer-binary", *PEERS[name][0]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        return "; ".join(lines[-2:]) or f"pip ended with {done.returncode}"
    return None if program(name).exists() else f"{name} brings no command {PEERS[name][1]}"


def main() -> int:
    failed = 0
    for name in sys.argv[1:] or PEERS:
        if name not in PEERS:
            print(f"{name}: not one of {', '.join(PEERS)}")
            return 2
        print(f"{name}: installing, if it is not there", flush=True)
        reason = install(name)
        failed += reason is not None
        print(f"{name}: {version(name) if reason is None else 'cannot be installed: ' + reason}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
