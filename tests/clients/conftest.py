"""A provider, a gateway with both of its dialects behind it, and what each client said of them."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.clients.environments import HERE, Unavailable, node, python
from tests.clients.gateway import KEY_VARIABLE, gateway
from tests.clients.matrix import MODELS, Client
from tests.conformance.script import LIMITED, UNKNOWN
from tests.conformance.upstream import upstream

Targets = dict[str, dict[str, str]]


@pytest.fixture(scope="session")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Targets]]:
    """For a client's own model: the provider itself, and Penstock in front of it in either dialect."""
    with upstream() as provider:
        deployments, models = {}, {}
        for speaks in ("openai", "anthropic"):
            here = {"engine": provider.address, "speaks": speaks, "health": "off", "key": f"env:{KEY_VARIABLE}"}
            for served in (*MODELS, LIMITED):
                deployments[f"{served}-{speaks}"] = {**here, "served": served}
                # with one attempt, a rate limit is told and not waited for
                models[f"{served}@{speaks}"] = {"deployments": [f"{served}-{speaks}"], "max_attempts": 1}
        config = {"models": models, "deployments": deployments}
        with gateway(config, tmp_path_factory.mktemp("clients")) as origin:

            def of(model: str) -> Targets:
                direct = {"origin": f"http://127.0.0.1:{provider.port}", "model": model, "limited": LIMITED}
                found = {"provider": {**direct, "unknown": UNKNOWN}}
                for speaks in ("openai", "anthropic"):
                    names = {"model": f"{model}@{speaks}", "limited": f"{LIMITED}@{speaks}", "unknown": UNKNOWN}
                    found[f"penstock-{speaks}"] = {"origin": origin, **names}
                return found

            yield of


@pytest.fixture(scope="session")
def told(targets: Callable[[str], Targets]) -> Callable[[Client], dict[str, Any]]:
    """What a client's program printed, run once: outcomes by target and case."""

    @cache
    def run(client: Client) -> dict[str, Any]:
        try:
            command = program(client)
        except Unavailable as problem:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"{client.name} cannot be installed here: {problem}")
        done = subprocess.run(
            command,
            input=json.dumps(targets(client.model)),
            env={**os.environ, "no_proxy": "127.0.0.1", "LANGSMITH_TRACING": "false"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return dict(json.loads(done.stdout))

    return run


def program(client: Client) -> list[str]:
    """The command. Raises `Unavailable`."""
    source, *arguments = client.program.split()
    folder = HERE / "programs"
    if not source.endswith(".mjs"):
        return [str(python(client.environment)), str(folder / source), *arguments]
    command, packages = node()
    for file in folder.glob("*.mjs"):  # Node looks for packages beside the file that imports them
        shutil.copy(file, packages)
    return [str(command), str(Path(packages) / source), *arguments]
