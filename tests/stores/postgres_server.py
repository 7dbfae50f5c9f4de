"""A real PostgreSQL on a free port of this machine."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


def _programs() -> Path | None:
    """The folder of `initdb` and `postgres`, which Debian keeps off the path. The newest, if there are several."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return folders[-1].parent if folders else None


def _somebody_else() -> dict[str, Any]:
    """PostgreSQL refuses to run as root: arguments for `subprocess` that make it somebody else."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(name)
            return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    return {}


class PostgresServer:
    """Data that is not synced: for tests of what is said, not of what survives a loss of power."""

    def __init__(self, programs: Path, folder: Path, *, fsync: bool = False) -> None:
        self._programs = programs
        self._data = folder / "data"
        self._as = _somebody_else()
        self._fsync = fsync
        if self._as:
            os.chown(folder, self._as["user"], self._as["group"])
        self._run("initdb", "-D", self._data, "-U", "penstock", "--auth=trust", "-E", "UTF8", "--locale=C", "--no-sync")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.url = f"postgres://penstock@127.0.0.1:{self._port}/postgres"

    def start(self) -> None:
        """Again is harmless."""
        if (self._data / "postmaster.pid").exists():
            return
        options = f"-c listen_addresses=127.0.0.1 -c port={self._port} -c unix_socket_directories= "
        options += f"-c fsync={'on' if self._fsync else 'off'} -c log_min_messages=fatal"
        self._run("pg_ctl", "start", "-w", "-D", self._data, "-l", self._data / "log", "-o", options)

    def stop(self) -> None:
        """As a crash would: nobody is asked to finish."""
        self._run("pg_ctl", "stop", "-w", "-D", self._data, "-m", "immediate")

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(self._programs / program), *map(str, arguments)]
        # To a file and not to a pipe: the server inherits it and would keep it open.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(command, stdout=output, stderr=output, cwd="/", check=False, timeout=50, **self._as)
            output.seek(0)
            assert done.returncode == 0, output.read().decode(errors="replace")


@contextlib.contextmanager
def postgres_server(*, fsync: bool = False) -> Iterator[PostgresServer]:
    """Skips where there is no PostgreSQL, but not in continuous integration, where there has to be one."""
    programs = _programs()
    if programs is None:
        why = "PostgreSQL is not installed (Debian: apt-get install postgresql)"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    with tempfile.TemporaryDirectory(prefix="penstock-postgres-") as folder:  # pytest's own folders are root's alone
        server = PostgresServer(programs, Path(folder), fsync=fsync)
        server.start()
        try:
            yield server
        finally:
            with contextlib.suppress(AssertionError):  # a test may have stopped it
                server.stop()
