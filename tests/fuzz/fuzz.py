"""Coverage-guided fuzzing of the wire: `make fuzz`, or `python tests/fuzz/fuzz.py --seconds 600 [target ...]`.

Starts from the kept corpus and adds to it what reaches new code. Whatever breaks a promise of `targets.py` is written
to tests/fuzz/findings/ with its traceback; exits 1 when there is any. Needs the extra `fuzz`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging  # noqa: TID251  only to silence a library
import os
import shlex
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
FINDINGS = HERE / "findings"
MAX_BYTES = 4096
SMALL, LARGE = 8_192, 65_536  # sizes whose times are compared; eight times as much may take three times eight
INPUTS_PER_TIMING = 512
MAX_KEPT = 100  # inputs of a target, the smallest, besides those written by hand or found to break something


def main() -> None:
    sys.path.insert(0, str(ROOT))
    if sys.argv[1:2] == ["--one"]:
        fuzz(sys.argv[2], sys.argv[3:])
        return
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("targets", nargs="*", help="all when none is named")
    arguments.add_argument("--seconds", type=int, default=600, help="for all targets together")
    options = arguments.parse_args()
    from tests.fuzz.targets import TARGETS

    names = options.targets or list(TARGETS)
    seconds = max(1, options.seconds // len(names))
    before = set(FINDINGS.glob("*.input"))
    for name in names:
        tell(f"{name}: {seconds} s\n  {_fuzz_and_keep(name, seconds)}")
    found = sorted(set(FINDINGS.glob("*.input")) - before)
    for path in found:
        tell(f"{path.relative_to(ROOT)}\n{path.with_suffix('.txt').read_text()}")
    tell(f"{len(found)} findings" if found else "nothing found")
    sys.exit(bool(found))


def _fuzz_and_keep(name: str, seconds: int) -> str:
    """libFuzzer's last word. What reaches code that the kept corpus does not is kept."""
    kept = CORPUS / name
    kept.mkdir(parents=True, exist_ok=True)
    FINDINGS.mkdir(exist_ok=True)
    command = [sys.executable, __file__, "--one", name, f"-max_len={MAX_BYTES}", "-timeout=20"]
    command.append(f"-artifact_prefix={FINDINGS}/{name}-")
    with tempfile.TemporaryDirectory() as work:  # libFuzzer writes to the folder that it is told first
        ran = _run([*command, f"-max_total_time={seconds}", work, str(kept)])
        if not ran.returncode:
            ran_again = _run([*command, "-merge=1", str(kept), work])
            assert not ran_again.returncode, ran_again.stderr[-3000:]
            own = sorted(kept.glob("[0-9a-f]" * 40), key=lambda path: path.stat().st_size)  # as libFuzzer names them
            for path in own[MAX_KEPT:]:
                path.unlink()
    if ran.returncode:
        sys.exit(f"{name}: the fuzzer itself failed\n{ran.stderr[-3000:]}")
    return next((line for line in ran.stderr.splitlines()[::-1] if "cov:" in line), ran.stderr[-2000:])


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)


def tell(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def fuzz(name: str, arguments: list[str]) -> None:
    """In a process of its own, which libFuzzer ends; it starts more like it to merge corpora."""
    import atheris

    logging.disable()
    with atheris.instrument_imports(include=["penstock.wire", "penstock.http.fetch"]):
        from tests.fuzz.targets import TARGETS
    target, known, n = TARGETS[name], set[str](), 0
    pool = Pool([path.read_bytes() for path in sorted(CORPUS.glob("*/*"))])

    def one_input(data: bytes) -> None:
        nonlocal n
        n += 1
        try:
            target(data)
            if n % INPUTS_PER_TIMING == 0:
                small, data = repeated(data, SMALL), repeated(data, LARGE)
                try:
                    check_growth(_seconds(target, small), _seconds(target, data))
                except AssertionError:  # the machine may have been busy for a moment
                    check_growth(_seconds(target, small, 20), _seconds(target, data, 20))
        except Exception as error:  # noqa: BLE001  that is what we are looking for
            frames = traceback.extract_tb(error.__traceback__)
            place = f"{name} {type(error).__name__} {frames[-1].filename}:{frames[-1].lineno}"
            if place not in known:
                known.add(place)
                keep_finding(name, data, traceback.format_exc())

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        rng = Random(seed)
        try:
            mutated = pool.mutate(data, rng) if rng.random() < 0.6 else None
        except RecursionError:  # nested deeper than Python can copy
            mutated = None
        return mutated[:max_size] if mutated is not None else bytes(atheris.Mutate(data, max_size))

    again = shlex.join([sys.executable, __file__, "--one", name])
    atheris.Setup([again, *arguments], one_input, custom_mutator=mutate)
    atheris.Fuzz()


def keep_finding(name: str, data: bytes, why: str) -> None:
    path = FINDINGS / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}.input"
    path.write_bytes(data)
    path.with_suffix(".txt").write_text(why)


def repeated(data: bytes, size: int) -> bytes:
    """The input with its middle so many times over."""
    third = max(1, len(data) // 3)
    middle = data[third : 2 * third] or b"x"
    return data[:third] + middle * (size // len(middle)) + data[2 * third :]


def check_growth(small: float, large: float) -> None:
    """Seconds for inputs of both sizes: time must grow with the input, not with its square."""
    assert large < 0.05 or large < 3 * (LARGE / SMALL) * small, f"{small:.3f} s became {large:.3f} s"


def _seconds(target: Callable[[bytes], None], data: bytes, n: int = 3) -> float:
    times = []
    for _ in range(n):
        began = time.process_time()
        target(data)
        times.append(time.process_time() - began)
    return min(times)


class Pool:
    """Mutations that know JSON: what bytes alone rarely become again. Words are those of the corpus."""

    def __init__(self, seeds: list[bytes]) -> None:
        self.words: list[str] = ["", "data:", "\ud83d"]
        self.values: list[Any] = [None, True, 0, -1, 2**70, 1e308, "", [], {}, [[]], [None], [{}], "\x00"]
        for seed in seeds:
            if seed.count(b"[") + seed.count(b"{") > 200:
                continue  # there for its depth, not for its words
            for line in seed.split(b"\n"):
                for container, key in _nodes(_json_of(line)[1]):
                    if isinstance(key, str) and key not in self.words:
                        self.words.append(key)
                    if len(repr(container[key])) < 80 and container[key] not in self.values:
                        self.values.append(container[key])

    def mutate(self, data: bytes, rng: Random) -> bytes | None:
        lines = data.split(b"\n")
        at = rng.randrange(len(lines))
        if rng.random() < 0.15:
            lines.insert(rng.randrange(len(lines) + 1), lines[at])
        elif rng.random() < 0.1:
            del lines[at]
        else:
            prefix, value = _json_of(lines[at])
            nodes = list(_nodes(value))
            if not nodes:
                return None
            for _ in range(rng.randint(1, 3)):
                self._change(*rng.choice(nodes), nodes, rng)
            try:
                lines[at] = prefix + json.dumps(value, ensure_ascii=rng.random() < 0.2).encode()
            except ValueError:  # half a surrogate pair, or a value that got into itself
                return None
        return b"\n".join(lines)

    def _change(self, container: Any, key: Any, nodes: list[tuple[Any, Any]], rng: Random) -> None:
        if key not in container if isinstance(container, dict) else key >= len(container):
            return  # gone with an earlier change
        match rng.randrange(6):
            case 0:
                container[key] = deepcopy(rng.choice(self.values))
            case 1:
                other, of = rng.choice(nodes)
                with_it = other.get(of) if isinstance(other, dict) else other[of] if of < len(other) else None
                container[key] = deepcopy(with_it)
            case 2:
                del container[key]
            case 3 if isinstance(container, dict):
                container[rng.choice(self.words)] = container.pop(key)
            case 4 if isinstance(container, dict):
                container[rng.choice(self.words)] = deepcopy(rng.choice(self.values))
            case _:
                container[key] = [container[key]]


def _json_of(line: bytes) -> tuple[bytes, Any]:
    begin = min((at for at in (line.find(b"{"), line.find(b"[")) if at >= 0), default=-1)
    if begin < 0:
        return line, None
    try:
        return line[:begin], json.loads(line[begin:])
    except (ValueError, RecursionError):
        return line, None


def _nodes(value: Any) -> Any:
    """Every place in a JSON value, as (container, key)."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _nodes(value[key])


if __name__ == "__main__":
    os.chdir(ROOT)
    main()
