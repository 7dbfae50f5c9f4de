"""What importing costs: no sockets anywhere, and no heavy room for the sake of `penstock --help`."""

import pkgutil
import subprocess
import sys

import pytest

import penstock

ROOMS = sorted(module.name for module in pkgutil.iter_modules(penstock.__path__, "penstock."))
NOT_FOR_HELP = ("asyncio", "numpy", "uvloop", "httptools", "yaml", "tokenizers", "jinja2", "ssl", "http.client")


# The parent package is imported before the hook is there: walking it would import every room.
IMPORT_ALL_OF = """
import importlib, pkgutil, sys, threading
import penstock

def refuse(event, arguments):
    if event.startswith(("socket.", "subprocess.", "os.fork", "os.posix_spawn", "os.system")):
        raise SystemExit(f"{{event}} {{arguments}}")

sys.addaudithook(refuse)
room = importlib.import_module("{room}")
if room is not penstock:
    for module in pkgutil.walk_packages(room.__path__, "{room}."):
        if "._kernels_" not in module.name:  # a library for ctypes, which only looks like a module
            importlib.import_module(module.name)
assert threading.active_count() == 1, threading.enumerate()
"""


def in_a_fresh_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=50)


@pytest.mark.parametrize("room", ["penstock", *ROOMS])
def test_importing_a_room_opens_no_socket_and_starts_nothing(room):
    ran = in_a_fresh_python(IMPORT_ALL_OF.format(room=room))
    assert ran.returncode == 0, ran.stderr


def test_help_loads_no_room_it_does_not_need():
    ran = in_a_fresh_python(
        "import sys, penstock.cli.main; print(' '.join(name for name in sys.argv[1:] or sys.modules))"
    )
    assert ran.returncode == 0, ran.stderr
    loaded = set(ran.stdout.split())
    assert "penstock.cli.main" in loaded
    assert loaded.isdisjoint(NOT_FOR_HELP), sorted(loaded.intersection(NOT_FOR_HELP))
    rooms = {name.split(".")[1] for name in loaded if name.startswith("penstock.")}
    assert rooms == {"cli"}, rooms
