"""All that must hold before a commit: the checks, every test, and the gateway's tests on it compiled.

What takes long to make (other people's clients, the compiled gateway) is made beside the checks and the first tests.
Whoever needs it waits for it, and tells what is wrong with it. Every step runs even when an earlier one failed.
`--cover` runs only the tests, which counting makes twice as long, names the lines that none of them runs, and writes a
browsable report.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REPORT = ".coverage-html"
AHEAD = (("-m", "tests.clients.environments"), ("scripts/compiled.py", "--build"))
PARALLEL = (
    "-nauto",
    "--maxprocesses=4",
    "--dist=loadfile",  # a file's tests stay together
    "--no-loadscope-reorder",
    "--max-worker-restart=0",  # the tests of a worker that dies are not given to another: that may hang
)


def main() -> int:
    if "--cover" in sys.argv[1:]:
        return code_of(
            "-m", "pytest", *PARALLEL, "--cov", "--cov-report=term-missing:skip-covered", f"--cov-report=html:{REPORT}"
        )
    ahead = [python(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for command in AHEAD]
    try:
        codes = [code_of("scripts/checks.py")]
        say("\n== pytest")
        codes.append(code_of("-m", "pytest", *PARALLEL))
        say("\n== pytest (of the gateway, compiled)")
        codes.append(code_of("scripts/compiled.py", *PARALLEL))
    finally:
        for process in ahead:
            process.terminate()
            process.wait()
    return 1 if any(codes) else 0


def code_of(*arguments: str) -> int:
    process = python(*arguments)
    try:
        return process.wait()
    except KeyboardInterrupt:  # which it has heard too, and it has something to say
        process.wait()
        raise


def python(*arguments: str, stdout: int | None = None, stderr: int | None = None) -> subprocess.Popen[bytes]:
    quickly = {**os.environ, "PENSTOCK_OPTIMIZE": "0"}  # what is compiled is tested, not measured
    return subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=stdout, stderr=stderr, env=quickly)


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
