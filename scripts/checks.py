"""The fast half of `make test`: format, lint, types and import contracts; then the tail of the code's sizes.

All checks run at once, and even when another one failed, so that one run shows all there is to repair.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHECKS = {
    "ruff check": "-m ruff check -q --output-format concise .",
    "ruff format": "-m ruff format --check -q --output-format concise .",
    "mypy": "-m mypy --no-error-summary",
    "import contracts": "-c from#importlinter.cli#import#lint_imports_command;lint_imports_command() --no-logo",
}
REPAIRS = {"ruff check": "make fix", "ruff format": "make fix"}
SHOWN = 5


def main() -> int:
    failed = []
    running = {name: start(arguments) for name, arguments in CHECKS.items()}
    for name, check in running.items():
        say(f"== {name}")
        said, _ = check.communicate()
        if check.returncode:
            say(said.decode(errors="replace").rstrip())
            repair = f"; `{REPAIRS[name]}` repairs most of it" if name in REPAIRS else ""
            say(f"-- {name} found something{repair}\n")
            failed.append(name)
    say("== the tail (for people to look at; nobody is stopped by it)")
    for line in tail():
        say(line)
    if failed:
        say(f"\nFailed: {', '.join(failed)}.")
    return 1 if failed else 0


def start(arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, *(word.replace("#", " ") for word in arguments.split(" "))]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def tail() -> list[str]:
    """The largest modules, longest functions and longest parameter lists of the package."""
    modules: list[tuple[int, str]] = []
    functions: list[tuple[int, str]] = []
    parameters: list[tuple[int, str]] = []
    for path in sorted((ROOT / "penstock").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        name = path.relative_to(ROOT).as_posix()
        modules.append((text.count("\n"), name))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                where = f"{name}:{node.lineno} {node.name}"
                functions.append((node.end_lineno - node.lineno + 1, where))
                given = node.args
                parameters.append((len(given.posonlyargs + given.args + given.kwonlyargs), where))
    lines = []
    for title, found in (("lines in a module", modules), ("in a function", functions), ("parameters", parameters)):
        lines.append(f"  most {title}: " + ", ".join(f"{n} {where}" for n, where in sorted(found)[: -SHOWN - 1 : -1]))
    return lines


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
