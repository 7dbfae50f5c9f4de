"""What setup.py compiles with mypyc: only what mypyc compiles to the same meaning, and never for whoever edits it."""

import ast
import importlib.util
import sys
import tomllib
from pathlib import Path

import pytest
import setuptools
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def build(monkeypatch):
    """setup.py as a module, with everything it would have told setuptools."""
    told = {}
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(setuptools, "setup", lambda **options: told.update(options))
    spec = importlib.util.spec_from_file_location("penstock_setup", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.told = told
    return module


def classes(source: Path) -> list[ast.ClassDef]:
    return [node for node in ast.walk(ast.parse(source.read_text())) if isinstance(node, ast.ClassDef)]


def test_no_compiled_module_defines_what_mypyc_would_change(build):
    for name in build.HOT:
        for made in classes(ROOT / name):
            bases = {ast.unparse(base) for base in made.bases}
            assert not any("Struct" in base for base in bases), f"{name}: {made.name} loses its options and types"
            assert not made.decorator_list, f"{name}: {made.name}: mypyc knows only some decorators"


def test_whoever_inherits_from_a_compiled_class_is_compiled_too(build):
    theirs = {made.name for name in build.HOT for made in classes(ROOT / name)}
    for path in sorted((ROOT / "penstock").rglob("*.py")):
        if path.relative_to(ROOT).as_posix() in build.HOT:
            continue
        tree = ast.parse(path.read_text())
        imported = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").replace(".", "/") + ".py" in build.HOT
            for alias in node.names
        }
        for made in classes(path):
            bases = {ast.unparse(base) for base in made.bases}
            assert not bases & imported & theirs, f"{path}: {made.name}"


def test_an_editable_installation_is_not_compiled(build, monkeypatch):
    compiled = []
    monkeypatch.setattr(build.build_ext, "run", lambda self: None)
    monkeypatch.setattr(build.Build, "compile_hot_modules", lambda self: compiled.append(self))
    command = build.Build(setuptools.Distribution({"name": "penstock"}))
    for how in ("editable_mode", "inplace"):
        command.editable_mode = command.inplace = False
        setattr(command, how, True)
        command.run()
    assert not compiled
    command.editable_mode = command.inplace = False
    command.run()
    assert compiled


def test_it_is_built_pure_when_that_is_asked_for(build, monkeypatch):
    monkeypatch.setattr(build, "PURE", True)
    monkeypatch.setattr(build.build_ext, "run", lambda self: None)
    monkeypatch.setattr(build.Build, "compile_hot_modules", lambda self: pytest.fail("compiled"))
    command = build.Build(setuptools.Distribution({"name": "penstock"}))
    command.editable_mode = False
    command.run()


def test_a_compiler_that_fails_leaves_the_modules_as_they_are_written(build, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "mypyc.build", None)  # importing it raises ImportError
    distribution = setuptools.Distribution({"name": "penstock", "ext_modules": []})
    command = build.Build(distribution)
    command.build_lib = str(tmp_path)
    said = []
    monkeypatch.setattr(command, "warn", said.append)
    command.compile_hot_modules()
    assert not command.compiled
    assert "not compiled" in said[0]
    assert distribution.ext_modules == []


def test_a_wheel_is_for_one_python_only_when_something_in_it_is(build, monkeypatch):
    monkeypatch.setattr(build.bdist_wheel, "get_tag", lambda self: ("cp311", "cp311", "linux_x86_64"))
    distribution = setuptools.Distribution({"name": "penstock", "cmdclass": build.told["cmdclass"]})
    command = build.PlatformWheel(distribution)
    libraries = distribution.get_command_obj("build_ext")
    libraries.ensure_finalized()
    assert command.get_tag() == ("py3", "none", "linux_x86_64")
    libraries.compiled = True
    assert command.get_tag() == ("cp311", "cp311", "linux_x86_64")


def test_what_the_build_needs_is_pinned(build):
    pinned = {Requirement(line).name for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert {Requirement(text).name for text in needed} <= pinned
