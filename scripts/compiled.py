"""Penstock as a wheel brings it, compiled, in the folder .compiled; made anew when anything that goes into it changed.
(PENSTOCK_OPTIMIZE=0: less optimised, in a seventh of the time and a folder of its own.)

`make setup` installs the sources as they are, so this is where the compiled gateway is measured (bench/gateway.py) and
tested (`make test` runs the tests of `ROOMS` on it). Arguments are for pytest, which runs `ROOMS` when they name no
tests; `--build` only builds.
"""

from __future__ import annotations

import compileall
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEVEL = os.environ.get("PENSTOCK_OPTIMIZE", "3")
FOLDER = ROOT / (".compiled" if LEVEL == "3" else f".compiled-{LEVEL}")
STAMP = FOLDER / ".made-of"
ROOMS = (
    "balancing",
    "batching",
    "gateway",
    "http",
    "resilience",
    "routing",
    "sim",
    "telemetry",
    "upstreams",
    "wire/test_anthropic_answers.py",
    "wire/test_anthropic_passing.py",
    "wire/test_anthropic_requests.py",
    "wire/test_continuing.py",
    "wire/test_openai_chat.py",
    "wire/test_openai_hub_answer.py",
    "wire/test_openai_hub_request.py",
    "wire/test_responses_answer.py",
    "wire/test_responses_request.py",
    "wire/test_sse.py",
    "wire/test_tool_names.py",
)
ASK = "from penstock.gateway import serve; print(serve.__file__)"


class NotCompiled(Exception):
    """Why there is no compiled Penstock, for the person at the terminal."""


def has_compiler() -> bool:
    return bool(os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang"))


def folder() -> Path:
    """What to put first on Python's path. Builds if need be, which takes most of a minute. Raises `NotCompiled`."""
    with Path(__file__).open() as lock:  # `make test` builds it ahead, beside what it runs first
        fcntl.flock(lock, fcntl.LOCK_EX)
        return build()


def build() -> Path:
    made_of = fingerprint()
    if STAMP.exists() and STAMP.read_text() == made_of:
        return FOLDER
    if not has_compiler():
        raise NotCompiled("there is no C compiler here (Debian and Ubuntu: apt-get install gcc)")
    shutil.rmtree(FOLDER, ignore_errors=True)
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-m", "pip", "wheel", "-v", "--disable-pip-version-check", "--no-build-isolation"]
        built = subprocess.run(
            [*command, "--no-deps", "-w", place, str(ROOT)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PENSTOCK_PURE": "0"},
            check=False,
        )
        if built.returncode:
            raise NotCompiled(f"the wheel cannot be built:\n{built.stdout[-4_000:]}")
        (wheel,) = Path(place).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(FOLDER)
    compileall.compile_dir(FOLDER, quiet=1)  # as pip does with what it installs
    where = subprocess.run([sys.executable, "-c", ASK], cwd=FOLDER, capture_output=True, text=True, check=False)
    if not where.stdout.strip().endswith(".so"):
        raise NotCompiled(f"mypyc or the compiler refused:\n{complaints(built.stdout)}{where.stderr}")
    STAMP.write_text(made_of)
    return FOLDER


def fingerprint() -> str:
    digest = hashlib.sha256(sys.version.encode())
    sources = [ROOT / "setup.py", ROOT / "pyproject.toml", ROOT / "constraints.txt"]
    for path in [*sources, *sorted((ROOT / "penstock").rglob("*.py")), *sorted((ROOT / "penstock").rglob("*.cpp"))]:
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def complaints(output: str) -> str:
    lines = output.splitlines()
    found = [line for line in lines if "error:" in line or "not compiled" in line]
    return "\n".join(found or lines[-30:]) + "\n"


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    arguments = sys.argv[1:]
    if not has_compiler():
        say("Without a C compiler the gateway is not compiled, so there is nothing to test that was not tested.")
        return 0
    try:
        place = folder()
    except NotCompiled as problem:
        say(f"Not compiled: {problem}")
        return 1
    if arguments == ["--build"]:
        return 0
    named = any(not argument.startswith("-") for argument in arguments)
    tests = [] if named else [str(ROOT / "tests" / room) for room in ROOMS]
    command = [sys.executable, "-m", "pytest", "-o", f"pythonpath={place} {ROOT}", "--rootdir", str(ROOT)]
    # safe: without the folder that one is in, where the sources are
    environment = {**os.environ, "PYTHONPATH": str(place), "PYTHONSAFEPATH": "1"}
    where = subprocess.run(
        [sys.executable, "-c", ASK], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert where.stdout.startswith(str(place)), f"{where.stdout}{where.stderr}"
    return subprocess.run([*command, *arguments, *tests], cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
