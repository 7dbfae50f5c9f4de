"""What follows from `kv_events` and `prefill`: rules, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from penstock.balancing.disaggregate import PrefillRule
from penstock.config.problems import nearest
from penstock.config.schema import Config, Deployment
from penstock.config.spec import KvEventsRule
from penstock.config.units import seconds

Path = tuple[str, ...]


def events_rule(deployment: Deployment) -> KvEventsRule | None:
    said = deployment.kv_events
    return None if said is None else KvEventsRule(said.endpoint or "", said.replay or "", said.ranks)


def prefill_rule(deployment: Deployment) -> PrefillRule | None:
    said = deployment.prefill
    if said is None:
        return None
    return PrefillRule(
        by=said.by,
        threshold=said.threshold,
        transfer_rate=said.transfer_rate,
        give_up_after=seconds(said.give_up_after),
    )


def check(config: Config, named: Callable[[Path], bool]) -> Iterator[tuple[Path, str]]:
    for name, deployment in config.deployments.items():
        here = ("deployments", name)
        if deployment.kv_events is not None:
            yield from _events((*here, "kv_events"), deployment)
        if deployment.prefill is not None:
            yield from _prefill((*here, "prefill"), name, deployment, config, named)


def _events(path: Path, deployment: Deployment) -> Iterator[tuple[Path, str]]:
    said = deployment.kv_events
    assert said is not None
    if deployment.provider is not None:
        yield path, "belongs to a deployment with `engine` or `model`: no provider tells of its caches"
    if deployment.model is not None:
        for option in ("endpoint", "replay"):
            if getattr(said, option) is not None:
                yield (*path, option), "is chosen by Penstock for the embedded engine; remove it: `kv_events: {}`"
        if said.ranks != 1:
            yield (*path, "ranks"), "has no meaning for the embedded engine; remove it, and use `replicas`"
        return
    if deployment.engine is not None and said.endpoint is None:
        yield path, "needs `endpoint`: where the engines publish, such as tcp://*:5557"
    for option in ("endpoint", "replay"):
        port = int((getattr(said, option) or ":1").rpartition(":")[2])
        if not 1 <= port <= 65_536 - said.ranks:
            yield (*path, option), "needs a port from 1 to 65535, and one more for each further rank"
    if (
        isinstance(deployment.engine, tuple)
        and len(deployment.engine) > 1
        and said.endpoint
        and "*" not in said.endpoint
    ):
        yield (*path, "endpoint"), "must have a star for the host: there are several engines, and each has its own"


def _prefill(
    path: Path, name: str, deployment: Deployment, config: Config, named: Callable[[Path], bool]
) -> Iterator[tuple[Path, str]]:
    said = deployment.prefill
    assert said is not None
    if not named(("deployments", said.by)):
        yield (*path, "by"), f"names `{said.by[:64]}`, which is not a deployment.{nearest(said.by, config.deployments)}"
    elif said.by == name:
        yield (*path, "by"), "names itself: leave `prefill` out, and its replicas compute their own prompts"
    for one, where in ((deployment, path), (config.deployments.get(said.by), (*path, "by"))):
        if one is not None and one.software != "vllm":
            yield where, "needs engines with `software: vllm` on both sides: prompts are handed over in vLLM's way"
    if seconds(said.give_up_after) <= 0:
        yield (*path, "give_up_after"), "must be longer than 0s"
