"""scripts/setup.py, what a newcomer meets first: what it keeps, what it makes anew, and what it says when it cannot."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def setup(tmp_path, monkeypatch):
    """The script, for a clone in a folder of its own that has nothing but what decides about the environment."""
    spec = importlib.util.spec_from_file_location("scripts_setup", ROOT / "scripts" / "setup.py")
    setup = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(setup)
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    venv = tmp_path / ".venv"
    monkeypatch.setattr(setup, "ROOT", tmp_path)
    monkeypatch.setattr(setup, "VENV", venv)
    monkeypatch.setattr(setup, "PYTHON", venv / "bin" / "python")
    monkeypatch.setattr(setup, "UNFINISHED", venv / ".unfinished")
    monkeypatch.setattr(setup, "LOG", venv / "setup.log")
    return setup


def finished(setup, extra: str) -> None:
    """As if the environment had been made: a Python that works, and the stamp."""
    (setup.VENV / "bin").mkdir(parents=True)
    setup.PYTHON.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    setup.PYTHON.chmod(0o755)
    (setup.VENV / ".penstock-place").write_text(str(setup.ROOT))
    setup.stamp(extra).write_text(setup.fingerprint())


def test_what_is_finished_is_kept(setup):
    finished(setup, "engine")
    assert setup.is_ready("engine")
    assert setup.why_unusable() is None


def test_the_environment_for_working_on_penstock_also_runs_it(setup):
    finished(setup, "dev")
    assert setup.is_ready("engine")


def test_the_environment_for_running_penstock_is_not_enough_to_work_on_it(setup):
    finished(setup, "engine")
    assert not setup.is_ready("dev")
    assert setup.why_unusable() is None  # it is completed, not made anew


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_other_requirements_are_installed_again(setup, name):
    finished(setup, "dev")
    with (setup.ROOT / name).open("a") as file:
        file.write("\n# changed\n")
    assert not setup.is_ready("dev")


def test_what_was_interrupted_is_made_anew(setup):
    finished(setup, "dev")
    setup.UNFINISHED.touch()
    assert not setup.is_ready("dev")
    assert setup.why_unusable() == "an earlier set-up was interrupted"


def test_an_environment_that_was_moved_is_made_anew(setup):
    finished(setup, "dev")
    (setup.VENV / ".penstock-place").write_text("/somewhere/else")
    assert setup.why_unusable() == "this folder was moved from /somewhere/else"


def test_an_environment_whose_python_is_gone_is_made_anew(setup):
    finished(setup, "dev")
    setup.PYTHON.write_text("#!/bin/sh\nexit 1\n")
    assert setup.why_unusable() == "its Python does not work any more"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("OSError: [Errno 28] No space left on device", "the disk is full"),
        ("WARNING: Retrying ... Temporary failure in name resolution", "no connection to the Python package index"),
        ("Max retries exceeded with url: /simple/", "no connection to the Python package index"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed", "does not trust"),
        ("error: [Errno 13] Permission denied: '/x'", "no permission to write"),
        ("ERROR: No matching distribution found for msgspec==0.22.0", "does not have msgspec==0.22.0"),
        ("something nobody has seen", "something nobody has seen"),
    ],
)
def test_what_pip_says_becomes_what_to_do(setup, said, told):
    assert told in setup.explain(said, "pip")


def test_a_python_that_is_too_old_is_told_what_is_needed(setup, monkeypatch):
    monkeypatch.setattr(setup.shutil, "which", lambda name: None)
    with pytest.raises(setup.CannotSetUp, match=r"needs Python 3\.11 or newer"):
        setup.run_under_a_newer_python()


def test_a_disk_without_room_is_told_before_anything_is_made(setup, monkeypatch):
    monkeypatch.setitem(setup.NEEDED_MB, "engine", 10**9)
    with pytest.raises(setup.CannotSetUp, match="MB free"):
        setup.set_up("engine", verbose=False)
    assert not setup.VENV.exists()


def test_a_file_in_the_place_of_the_environment_is_not_deleted(setup):
    setup.VENV.write_text("mine")
    with pytest.raises(setup.CannotSetUp, match="Move it away"):
        setup.set_up("engine", verbose=False)
    assert setup.VENV.read_text() == "mine"


def test_the_script_uses_no_syntax_that_an_old_python_cannot_read():
    import ast

    ast.parse((ROOT / "scripts" / "setup.py").read_text(), feature_version=(3, 7))


def test_make_alone_lists_the_targets():
    make = shutil.which("make")
    if make is None:
        pytest.skip("there is no make here")
    ran = subprocess.run([make], cwd=ROOT, capture_output=True, text=True, check=True, env=dict(os.environ))
    for target in ("setup", "demo", "test", "check", "fix", "cover", "bench"):
        assert f"make {target}" in ran.stdout


def test_every_pinned_version_is_one_that_the_package_allows():
    import tomllib

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    pinned = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            (version,) = requirement.specifier
            pinned[canonicalize_name(requirement.name)] = version.version
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [text for extra in ("engine", "aws", "google", "postgres", "redis", "dev") for text in extras[extra]]
    for text in [*project["dependencies"], *wanted]:
        requirement = Requirement(text)
        if requirement.name != "penstock":
            assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, text
