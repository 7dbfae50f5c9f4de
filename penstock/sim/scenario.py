"""A scenario file: a `penstock.yaml`, with `traffic:`, `events:`, `engine_model:` and `simulation:` beside it.

Read and checked as the configuration is, every problem with its line; then run once for each policy that is compared,
with the same traffic.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from random import Random
from typing import Final

import msgspec
import yaml
from msgspec import structs

from penstock.balancing.balancer import Balancer
from penstock.balancing.options import Balancing
from penstock.balancing.queue_options import QueueOptions
from penstock.config.compile import compile_plane
from penstock.config.load import load, load_options
from penstock.config.nodes import Mapping, Node, Scalar, parse
from penstock.config.nodes import Sequence as ListNode
from penstock.config.problems import ConfigError, Problem, nearest
from penstock.config.schema import Config
from penstock.config.spec import DeploymentSpec
from penstock.config.units import seconds
from penstock.core.plan import Plan
from penstock.resilience.options import BreakerRule, HedgeRule, Ladder, ShedRule
from penstock.resilience.retry_budget import RetryBudget
from penstock.sim import options, results, run
from penstock.sim.cost_model import CostModel
from penstock.sim.deployment import Deployment
from penstock.sim.events import schedule
from penstock.sim.options import EngineOptions, Extra, Policy, cost_model, hardware
from penstock.sim.results import Results
from penstock.traffic.options import TrafficError, Workload, read
from penstock.traffic.source import OpenTrace, Source

OWN: Final = ("traffic", "events", "engine_model", "simulation")
NEVER: Final = 1_000_000_000  # failures: a breaker that does not open
UNLIMITED: Final = (1e9, 1e9)  # a retry budget that is never spent
POLICIES: Final = (
    "least_cost",
    "round_robin",
    "least_requests",
    "power_of_two",
    "consistent_hash",
    "weighted",
    "random",
)


class Scenario(msgspec.Struct, frozen=True):
    """Ready to be run. `deployments` in the order of the file."""

    file: str
    deployments: dict[str, Deployment]
    startup: dict[str, float]
    balancing: dict[str, Balancing]  # by deployment
    plans: dict[str, Plan]
    hedges: dict[str, HedgeRule]  # by model, as the next one
    ladders: dict[str, Ladder]
    queue: QueueOptions
    shed: ShedRule | None
    retries: tuple[float, float]  # of each model's budget: per request, and per second
    workloads: tuple[Workload, ...]
    events: tuple[options.Event, ...]
    policies: tuple[Policy, ...]
    slo: results.Slo
    seed: int
    report_every: float


class Ran(msgspec.Struct, frozen=True):
    """What came of one policy."""

    policy: Policy
    results: Results


def load_scenario(text: str, file: str) -> Scenario:
    """`file` is the name used in messages. Raises `ConfigError` with every problem that can be told at once."""
    root = parse(text, file)
    if not isinstance(root, Mapping):
        raise ConfigError((Problem(file, root.line, "", "must be a mapping with models, deployments, traffic..."),))
    own = Mapping([entry for entry in root.entries if entry[0].text in OWN[1:]], root.line)
    extra = load_options(own, file, Extra)
    config = load(_without(text, root), file)
    checker = _Checker(file, root, config, extra)
    workloads = checker.traffic(text)
    checker.events()
    deployments = checker.deployments()
    policies = checker.policies()
    if checker.problems:
        raise ConfigError(checker.problems)
    simulation = extra.simulation
    plane = compile_plane(config, 1, {}, insecure_dev=True)
    return Scenario(
        file,
        {one.name: _deployment(one, deployments[one.name]) for one in plane.deployments},
        {name: seconds(_engine(extra, name).startup) for name in config.deployments},
        {one.name: one.balancing for one in plane.deployments},
        {model.name: model.plan for model in plane.models},
        {model.name: model.hedge for model in plane.models if model.hedge is not None},
        {model.name: model.degrade for model in plane.models},
        plane.queue,
        plane.shed,
        (plane.retry_budget_ratio, plane.retry_budget_per_second),
        workloads,
        extra.events,
        policies,
        results.Slo(seconds(simulation.slo.ttft), seconds(simulation.slo.itl)),
        simulation.seed,
        seconds(simulation.report_every),
    )


def simulate(scenario: Scenario, policy: Policy, open_trace: OpenTrace, seed: int | None = None) -> Ran:
    """One policy. The traffic is the same for all of them. Raises what `traffic.source.Source` raises."""
    simulation = build(scenario, policy, open_trace, seed)
    simulation.run()
    return Ran(policy, simulation.results(scenario.slo))


def build(scenario: Scenario, policy: Policy, open_trace: OpenTrace, seed: int | None = None) -> run.Simulation:
    """Everything in its place, and nothing happened yet."""
    rng = Random(scenario.seed if seed is None else seed)
    traffic, deciding = rng.getrandbits(64), rng.getrandbits(64)
    order = policy.late_binding or scenario.queue.order
    balancer = Balancer()
    balancer.configure(_balancing(scenario, policy))
    simulation = run.Simulation(
        scenario.deployments if policy.outliers else _without_outliers(scenario.deployments),
        Source(scenario.workloads, open_trace, Random(traffic)),
        balancer=balancer,
        plans=_plans(scenario.plans, policy),
        breaker=None if policy.breaker else BreakerRule(NEVER),
        budget=lambda: RetryBudget(*_retries(scenario, policy)),
        queue=None if order == "off" else structs.replace(scenario.queue, order=order),
        hedges=scenario.hedges if policy.hedge else None,
        shed=scenario.shed if policy.shed else None,
        ladders=scenario.ladders if policy.degrade else None,
        seed=deciding,
        report_every=scenario.report_every,
    )
    schedule(simulation, scenario.events, scenario.startup)
    return simulation


def _deployment(spec: DeploymentSpec, engines: Deployment) -> Deployment:
    return structs.replace(
        engines,
        breaker=BreakerRule(spec.breaker_failures, spec.breaker_open_for),
        outliers=spec.outliers,
        concurrency=spec.concurrency,
    )


def _without_outliers(deployments: dict[str, Deployment]) -> dict[str, Deployment]:
    return {name: structs.replace(one, outliers=None) for name, one in deployments.items()}


def _balancing(scenario: Scenario, policy: Policy) -> dict[str, Balancing]:
    found = {}
    for name, written in scenario.balancing.items():
        found[name] = structs.replace(
            written, policy=policy.balancing or written.policy, pending_tokens=scenario.queue.threshold
        )
    return found


def _plans(written: dict[str, Plan], policy: Policy) -> dict[str, Plan]:
    found = written
    if policy.max_attempts is not None:
        found = {name: structs.replace(plan, max_attempts=policy.max_attempts) for name, plan in found.items()}
    if not policy.hedge:
        found = {name: structs.replace(plan, hedge_after=None) for name, plan in found.items()}
    return found


def _retries(scenario: Scenario, policy: Policy) -> tuple[float, float]:
    retries = policy.retries
    if retries is None:
        return scenario.retries
    return UNLIMITED if isinstance(retries, str) else (float(retries.share), float(retries.per_second))


class _Checker:
    """What the types of the options do not say. Finds lines by the path of names and places."""

    def __init__(self, file: str, root: Mapping, config: Config, extra: Extra) -> None:
        self.problems: list[Problem] = []
        self._file = file
        self._root = root
        self._config = config
        self._extra = extra

    def tell(self, path: Sequence[str | int], message: str) -> None:
        dotted = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
        self.problems.append(Problem(self._file, line_of(self._root, path), dotted, message))

    def traffic(self, text: str) -> tuple[Workload, ...]:
        if all(name.text != "traffic" for name, _ in self._root.entries):
            self.problems.append(Problem(self._file, 1, "traffic", "is missing: which requests arrive, and when"))
            return ()
        try:
            workloads = read(yaml.safe_load(text)["traffic"])
        except TrafficError as error:
            path, _, message = str(error).partition(": ")
            self.tell(_parts(path), message or path)
            return ()
        for place, workload in enumerate(workloads):
            if workload.model and workload.model not in self._config.models:
                known = nearest(workload.model, self._config.models)
                self.tell(("traffic", place, "model"), f"names no model: {workload.model!r}.{known}")
        return workloads

    def events(self) -> None:
        counts = {name: self._n_replicas(name) for name in self._config.deployments}
        replicas = [f"{name}-{number}" for name, count in counts.items() for number in range(count)]
        for place, event in enumerate(self._extra.events):
            here = ("events", place)
            if (event.replica is None) == (event.deployment is None):
                self.tell(here, "needs either a `replica` or a `deployment`")
            elif event.replica is not None and event.replica not in replicas:
                self.tell((*here, "replica"), f"names no replica: {event.replica!r}.{nearest(event.replica, replicas)}")
            elif event.deployment is not None and event.deployment not in counts:
                known = nearest(event.deployment, counts)
                self.tell((*here, "deployment"), f"names no deployment: {event.deployment!r}.{known}")

    def deployments(self) -> dict[str, Deployment]:
        simulation, known = self._extra.simulation, self._config.deployments
        for part in ("replicas", "engines"):
            for name in getattr(simulation, part):
                if name not in known:
                    self.tell(("simulation", part, name), f"names no deployment.{nearest(name, known)}")
        found: dict[str, Deployment] = {}
        for name in known:
            own = name in simulation.engines
            where = ("simulation", "engines", name) if own else ("engine_model",)
            made = self._engine(_engine(self._extra, name), where)
            if made is not None:
                model, gpus = made
                found[name] = Deployment(
                    replicas=self._n_replicas(name),
                    engine=model,
                    gpus=gpus,
                    gpu_hour=float(_engine(self._extra, name).gpu_hour),
                )
        return found

    def policies(self) -> tuple[Policy, ...]:
        found: list[Policy] = []
        for place, policy in enumerate(self._extra.simulation.policies):
            if isinstance(policy, str):
                made = named(policy)
                if made is None:
                    self.tell(
                        ("simulation", "policies", place), f"is no policy: {policy!r}.{nearest(policy, POLICIES)}"
                    )
                    continue
                policy = made
            if policy.name in [other.name for other in found]:
                self.tell(("simulation", "policies", place), f"is there twice: {policy.name!r}")
            found.append(policy)
        return tuple(found)

    def _engine(self, wanted: EngineOptions, where: Sequence[str]) -> tuple[CostModel, int] | None:
        try:
            return cost_model(wanted)
        except KeyError:
            known = hardware()
            near = nearest(wanted.hardware or "", known) or f" There are {', '.join(known)}."
            self.tell((*where, "hardware"), f"is not in the table: {wanted.hardware!r}.{near}")
        except ValueError as error:
            self.tell(where, str(error))
        return None

    def _n_replicas(self, name: str) -> int:
        said = self._extra.simulation.replicas.get(name)
        if said is not None:
            return said
        deployment = self._config.deployments[name]
        if isinstance(deployment.engine, tuple):
            return len(deployment.engine)
        return deployment.replicas or 1


def named(policy: str) -> Policy | None:
    """A policy by the name of its balancing, with late binding where that is by cost; None: there is none."""
    if policy not in POLICIES:
        return None
    late = "hrrn" if policy == "least_cost" else "off"
    return msgspec.convert({"name": policy, "balancing": policy, "late_binding": late}, Policy)


def line_of(root: Node, path: Sequence[str | int]) -> int:
    """Of what is at `path`, or of the nearest thing around it that is in the file."""
    node, line = root, root.line
    for part in path:
        if isinstance(node, Mapping) and isinstance(part, str):
            found = [(name.line, child) for name, child in node.entries if name.text == part]
            if not found:
                break
            line, node = found[-1]
        elif isinstance(node, ListNode) and isinstance(part, int) and part < len(node.items):
            node = node.items[part]
            line = node.line
        elif part != 0:  # one workload may stand without a list
            break
    return line


def _engine(extra: Extra, name: str) -> EngineOptions:
    return extra.simulation.engines.get(name, extra.engine_model)


def _parts(path: str) -> list[str | int]:
    return [int(part) if part.isdigit() else part for part in re.findall(r"[^.\[\]]+", path)]


def _without(text: str, root: Mapping) -> str:
    """The text with as many lines, and what is not of a `penstock.yaml` left out."""
    lines = text.splitlines()
    for begin, end, name in _sections(root, len(lines)):
        if name in OWN:
            lines[begin:end] = [""] * (end - begin)
    return "\n".join(lines) + "\n"


def _sections(root: Mapping, n_lines: int) -> Iterator[tuple[int, int, str]]:
    """(first line, line after the last, name) of what stands at the left margin; lines from 0."""
    begins: list[tuple[int, Scalar]] = [(name.line - 1, name) for name, _ in root.entries]
    for place, (begin, name) in enumerate(begins):
        yield begin, begins[place + 1][0] if place + 1 < len(begins) else n_lines, name.text
