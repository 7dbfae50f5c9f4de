"""Makes the environment in .venv, or finds that it is already right; `make` calls it before everything else.

It runs under whatever Python the machine has, however old, before anything is installed: standard library only, and
nothing newer than Python 3.7 in the syntax. Every way it can fail ends in one message that says what to do.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
UNFINISHED = VENV / ".unfinished"  # there while the environment is being made: whoever finds it starts again
LOG = VENV / "setup.log"

NEWEST_FIRST = ("python3.14", "python3.13", "python3.12", "python3.11")
NEEDED_MB = {"engine": 400, "dev": 900}  # measured 163 and 348 when installed, and as much again on the way


class CannotSetUp(Exception):
    """What went wrong and what to do about it, for the person at the terminal."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Make Penstock's environment in .venv.")
    parser.add_argument("extra", choices=("engine", "dev"), help="engine: to run Penstock; dev: to work on it as well")
    parser.add_argument("--verbose", action="store_true", help="show everything pip says")
    options = parser.parse_args()
    try:
        if sys.version_info < (3, 11):  # noqa: UP036 - this file also runs where that is true
            return run_under_a_newer_python()
        if not is_ready(options.extra):
            set_up(options.extra, options.verbose)
    except CannotSetUp as problem:
        say(f"\nCannot set up Penstock: {problem}", sys.stderr)
        return 1
    except PermissionError as problem:
        say(f"\nCannot set up Penstock: {no_permission(problem.filename or str(ROOT))}", sys.stderr)
        return 1
    except OSError as problem:
        say(f"\nCannot set up Penstock: {no_space() if problem.errno == 28 else problem}", sys.stderr)
        return 1
    except KeyboardInterrupt:
        say("\nStopped. Nothing is broken: run the same command again and it starts over.", sys.stderr)
        return 130
    return 0


def run_under_a_newer_python() -> int:
    for name in NEWEST_FIRST:
        found = shutil.which(name)
        if found:
            return subprocess.call([found, str(Path(__file__).resolve()), *sys.argv[1:]])
    raise CannotSetUp(
        f"it needs Python 3.11 or newer, and {sys.executable} is Python {platform.python_version()}.\n"
        "Debian 12 and Ubuntu 24.04 have it as `apt-get install python3`. If yours has another name or place:\n"
        "    make PYTHON=/path/to/python3.11 ..."
    )


# What is there already?


def fingerprint() -> str:
    """Changes with everything that decides what is installed, and with the place: an environment cannot be moved."""
    digest = hashlib.sha256(str(ROOT).encode())
    sources = ["pyproject.toml", "constraints.txt", "setup.py", "scripts/setup.py", "penstock/engine/kernels.cpp"]
    # Whoever installs a compiler later gets the kernels at the next run.
    digest.update(b"compiler" if compiler() else b"none")
    kernels = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "penstock" / "engine").glob("*.cpp"))
    for name in sources + kernels:
        path = ROOT / name
        digest.update(name.encode() + b"\0" + (path.read_bytes() if path.exists() else b"") + b"\0")
    return digest.hexdigest()


def compiler() -> str | None:
    return os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")


def stamp(extra: str) -> Path:
    return VENV / (".penstock-" + extra)


def is_ready(extra: str) -> bool:
    enough = ("dev",) if extra == "dev" else ("engine", "dev")  # dev contains engine
    if UNFINISHED.exists() or not PYTHON.exists():
        return False
    wanted = fingerprint()
    return any(stamp(one).exists() and stamp(one).read_text() == wanted for one in enough)


def why_unusable() -> str | None:
    """Why the environment that is there must be made anew; None when it can be kept and completed."""
    if UNFINISHED.exists() or not PYTHON.exists():
        return "an earlier set-up was interrupted"
    place = VENV / ".penstock-place"
    if place.exists() and place.read_text() != str(ROOT):
        return f"this folder was moved from {place.read_text()}"
    check = subprocess.run(
        [str(PYTHON), "-c", "import sys, pip; sys.exit(sys.version_info < (3, 11))"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return "its Python does not work any more" if check.returncode else None


# Making it


def set_up(extra: str, verbose: bool) -> None:
    if VENV.is_symlink() or (VENV.exists() and not VENV.is_dir()):
        raise CannotSetUp(f"{VENV} is not a folder. Move it away and run this again.")
    look_for_room(extra)
    if VENV.exists():
        reason = why_unusable()
        if reason:
            say(f"Making the environment in .venv anew: {reason}.")
            shutil.rmtree(VENV)
    if not VENV.exists():
        say(f"Making a Python {platform.python_version()} environment in .venv.")
        VENV.mkdir()
        UNFINISHED.touch()
        make_venv()
        UNFINISHED.unlink()
    (VENV / ".penstock-place").write_text(str(ROOT))
    for one in ("engine", "dev"):
        if stamp(one).exists():
            stamp(one).unlink()
    what = "what Penstock needs to run" if extra == "engine" else "what Penstock needs to run and to be worked on"
    say(f"Installing {what} (the first time takes a minute or two).")
    LOG.write_bytes(b"")
    constraints = str(ROOT / "constraints.txt")
    # The build backend comes from constraints.txt too; pip's isolated build would download whatever is newest.
    pip(["install", "-c", constraints, "setuptools"], verbose)
    pip(["install", "-c", constraints, "--no-build-isolation", "-e", f"{ROOT}[{extra}]"], verbose)
    check_it_starts()
    stamp(extra).write_text(fingerprint())
    say("The environment is ready.")
    say_if_slower()


def say_if_slower() -> None:
    """The kernels are compiled while installing, where there is a compiler; without them NumPy computes."""
    if not list((ROOT / "penstock" / "engine").glob("_kernels_*.so")):
        why = f"could not be compiled (see {LOG})" if compiler() else "were not compiled: there is no C++ compiler here"
        say(f"Note: the engine's kernels {why}. It works without them, several times slower, with NumPy.")
        if not compiler():
            say("      For the fast ones: apt-get install g++, and then the same command again.")


def look_for_room(extra: str) -> None:
    probe = VENV if VENV.exists() else ROOT
    try:
        with tempfile.TemporaryFile(dir=str(probe)):
            pass
    except PermissionError:
        raise CannotSetUp(no_permission(str(probe))) from None
    except OSError as problem:
        raise CannotSetUp(no_space() if problem.errno == 28 else f"{probe}: {problem.strerror}") from None
    needed = NEEDED_MB[extra]
    free = shutil.disk_usage(str(probe)).free // 1_000_000
    installed = stamp("engine").exists() or stamp("dev").exists()  # then most of it is there
    if free < (needed // 4 if installed else needed):
        raise CannotSetUp(
            f"the disk of {ROOT} has {free} MB free; about {needed} MB are needed. Make room and run this again."
        )


def make_venv() -> None:
    ensurepip = importlib.util.find_spec("ensurepip")
    if ensurepip is not None and ensurepip.origin:
        command = [sys.executable, "-m", "venv", str(VENV)]
        made = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        if made.returncode:
            raise CannotSetUp(explain(made.stdout.decode(errors="replace"), "python3 -m venv"))
        return
    # Debian and Ubuntu ship Python without ensurepip; it comes with the package python3-venv.
    if make_venv_with_the_pip_there_is():
        return
    install = "apt-get install -y python3-venv"
    of_the_system = os.path.realpath(sys.executable).startswith("/usr/bin/")
    if of_the_system and hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get"):
        say("This Python cannot make environments yet; installing Debian's package python3-venv.")
        environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
        for command in (["apt-get", "update", "-q"], install.split()):
            done = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, check=False
            )
            if done.returncode and command[1] == "install":
                raise CannotSetUp(f"`{install}` failed:\n{tail(done.stdout.decode(errors='replace'))}")
        made = subprocess.run(
            [sys.executable, "-m", "venv", str(VENV)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if made.returncode == 0:
            return
    raise CannotSetUp(
        f"{sys.executable} cannot make environments: its `ensurepip` module is missing. On Debian and Ubuntu:\n"
        f"    sudo {install}\nand then run this again."
    )


def make_venv_with_the_pip_there_is() -> bool:
    """Without ensurepip, a pip that is on the machine can put itself into the environment (pip 22.3 and newer)."""
    has_pip = subprocess.run(
        [sys.executable, "-m", "pip", "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
    )
    if has_pip.returncode:
        return False
    without = subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(VENV)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    if without.returncode:
        return False
    moved_in = subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(PYTHON), "install", "-q", "pip"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return moved_in.returncode == 0


def pip(arguments: list[str], verbose: bool) -> None:
    """Run pip, keep all it says in the log, and show that it is alive. Raises CannotSetUp with the reason in words."""
    command = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    show = sys.stdout.isatty() and not verbose
    said: list[str] = []
    environment = dict(os.environ, PIP_USER="0")  # `pip --user` by habit would install beside the environment
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=str(ROOT), env=environment
    )
    with LOG.open("a") as log, process:
        assert process.stdout is not None
        for raw in process.stdout:
            line = raw.decode(errors="replace")
            log.write(line)
            said.append(line)
            if verbose:
                say(line.rstrip())
            elif show and line.startswith(("Collecting", "Installing", "  Building", "Building")):
                doing = " ".join(line.split()[:2])
                sys.stdout.write(f"\r\033[K  {doing[:70]}")
                sys.stdout.flush()
        returncode = process.wait()
    if show:
        sys.stdout.write("\r\033[K")
    if returncode:
        raise CannotSetUp(explain("".join(said), "pip"))


def check_it_starts() -> None:
    started = subprocess.run(
        [str(PYTHON), "-m", "penstock.cli.main", "--version"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=str(VENV),  # so that what is imported is what was installed
        check=False,
    )
    if started.returncode:
        raise CannotSetUp(f"everything was installed, but `penstock --version` fails:\n{tail(started.stdout.decode())}")


# Words for what went wrong


def explain(output: str, who: str) -> str:
    lowered = output.lower()
    hardly_any = 20_000_000  # bytes; ensurepip does not say why it failed
    if "no space left" in lowered or "disk quota" in lowered or shutil.disk_usage(str(ROOT)).free < hardly_any:
        return no_space()
    if "permission denied" in lowered or "read-only file system" in lowered:
        return no_permission(str(VENV))
    unreachable = (
        "failed to establish a new connection", "temporary failure in name resolution", "name or service not known",
        "connection refused", "network is unreachable", "timed out", "proxyerror", "connection broken",
        "failed to resolve", "max retries exceeded", "could not connect", "connection aborted",
    )  # fmt: skip
    if any(sign in lowered for sign in unreachable):
        return (
            "the packages could not be downloaded: no connection to the Python package index (https://pypi.org).\n"
            "Check the network, or set the index or proxy that your network uses:\n"
            "    PIP_INDEX_URL=https://... HTTPS_PROXY=http://... make ...\n"
            f"and run this again. All that pip said is in {LOG}"
        )
    if "certificate verify failed" in lowered:
        return (
            "the package index shows a certificate that this machine does not trust (a proxy that looks inside?).\n"
            "Tell pip which certificates to trust: PIP_CERT=/path/to/certificates.pem make ..."
        )
    missing = re.search(r"(?:satisfies the requirement|distribution found for|cannot install) (\S+)", lowered)
    if missing:
        return (
            f"the package index that pip asks does not have {missing.group(1)} in the version that constraints.txt "
            f"names.\nAn index of your own (PIP_INDEX_URL, or `pip config list`) may lag behind https://pypi.org. "
            f"All that pip said is in {LOG}"
        )
    more = f"\nAll of them are in {LOG}" if LOG.exists() else ""
    return f"{who} failed. Its last words:\n{tail(output)}{more}"


def no_space() -> str:
    return (
        f"the disk is full ({ROOT} or the temporary folder {tempfile.gettempdir()}).\n"
        "Make room, or point TMPDIR at a disk that has some, and run this again."
    )


def no_permission(where: str) -> str:
    return (
        f"no permission to write in {where}.\n"
        f'Make it yours (`sudo chown -R "$(id -un)" {ROOT}`) or clone Penstock into a folder of your own.'
    )


def tail(output: str) -> str:
    return "\n".join("    " + line for line in output.rstrip().splitlines()[-12:])


def say(text: str, where=None) -> None:  # type: ignore[no-untyped-def]  # None: stdout as it is now
    (where or sys.stdout).write(text + "\n")
    (where or sys.stdout).flush()


if __name__ == "__main__":
    sys.exit(main())
