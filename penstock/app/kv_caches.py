"""What one worker knows of its engines' prefix caches: whom it hears, and whom it asks how they read a prompt."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable

from penstock.app.errors import StartError
from penstock.balancing.exact_index import ExactIndex
from penstock.config.schema import Config
from penstock.config.spec import DeploymentSpec, PlaneSpec
from penstock.core.clock import Clock
from penstock.upstreams.kv_events import KvEvents, Source, sources_of
from penstock.upstreams.kv_tokens import TokenAsker


def need_kv_events(config: Config) -> None:
    """Raises `StartError` when caches are to be known that cannot be heard of here."""
    names = [name for name, deployment in config.deployments.items() if deployment.kv_events is not None]
    if names and importlib.util.find_spec("zmq") is None:
        raise StartError(
            f"deployments.{names[0]}.kv_events needs pyzmq, and this installation has not. "
            "Install it with: pip install 'penstock[kv-events]'"
        )


def sources(spec: PlaneSpec) -> Iterable[Source]:
    """Whom a worker that serves this hears."""
    for deployment in spec.deployments:
        yield from _sources(deployment)


def _sources(deployment: DeploymentSpec) -> Iterable[Source]:
    rule = deployment.kv_events
    if rule is None:
        return
    for replica in deployment.replicas:
        events, replay = replica.kv_events or rule.endpoint, replica.kv_replay or rule.replay
        if events:  # an embedded engine that is being started has not told where, yet
            yield from sources_of(replica.name, deployment.name, replica.origin, events, replay, ranks=rule.ranks)


class KvCaches:
    """`run` it in a task of its own; `follow` each plane as it is swapped in."""

    def __init__(self, index: ExactIndex, clock: Clock) -> None:
        self.events = KvEvents(index, clock)
        self.tokens = TokenAsker(index, clock)

    async def run(self) -> None:
        """Until `stop`. A worker that has nobody to hear never loads pyzmq."""
        try:
            await self.events.run()
        finally:
            self.tokens.close()

    def follow(self, spec: PlaneSpec) -> None:
        self.events.follow(list(sources(spec)))

    def stop(self) -> None:
        self.events.stop()
