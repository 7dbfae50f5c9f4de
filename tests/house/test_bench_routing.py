"""The routing bench runs, part by part, on settings so small that no figure means anything; and how it judges."""

import importlib
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def bench(monkeypatch):
    """A module of bench/ by its name, as for who runs `python bench/routing.py`; all in this process."""
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    return importlib.import_module


@pytest.fixture
def tiny(bench):
    return bench("routing_simulated").Scale(seeds=1, requests=12, share=0.01)


def assert_told(part):
    assert part.title
    assert part.said
    assert part.verdicts
    assert all(verdict.target and verdict.figure for verdict in part.verdicts)


@pytest.mark.parametrize("part", ["tail", "fair", "faults"])
def test_a_part_ends_with_tables_and_verdicts(bench, tiny, part):
    assert_told(getattr(bench("routing_trouble"), part)(tiny))


def test_the_traces_are_replayed_by_every_rival_with_few_workers_and_with_many(bench, tiny):
    traces, simulated = bench("routing_traces"), bench("routing_simulated")
    if not traces.MOONCAKE.exists():
        pytest.skip(simulated.absent(traces.MOONCAKE))
    part = traces.measure(tiny)
    assert_told(part)
    for system in simulated.SYSTEMS:
        rows = [line for line in part.said if line.startswith(f"| {system} |")]
        assert len(rows) == 2, system


def test_without_the_trace_nothing_counts_as_met(bench, tiny, monkeypatch):
    traces = bench("routing_traces")
    monkeypatch.setattr(traces, "MOONCAKE", ROOT.parent / "shared" / "data" / "there-is-none.jsonl")
    part = traces.measure(tiny)
    assert [verdict.met for verdict in part.verdicts] == [None]
    assert "there-is-none.jsonl is not here" in part.said[0]


def test_the_same_job_gives_the_same_results(bench):
    trouble = bench("routing_trouble")
    job = trouble.Fault("killed", 4, 1, 6.0)
    assert trouble.strike(job) == trouble.strike(job)


def test_a_brown_out_is_drawn_from_the_record_of_its_part(bench, tiny, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    trouble = bench("routing_trouble")
    scenario = (trouble.SCENARIOS / "brown_out.yaml").read_text()
    assert "rate: 12" in scenario
    (tmp_path / "brown_out.yaml").write_text(scenario.replace("rate: 12", "rate: 0.5"))  # a handful of requests
    monkeypatch.setattr(trouble, "SCENARIOS", tmp_path)
    part = trouble.brownout(tiny)
    assert_told(part)
    first, second = tmp_path / "first.svg", tmp_path / "second.svg"
    plots = bench("routing_plots")
    plots.brown_out(part.record, first)
    plots.brown_out(part.record, second)
    assert first.read_text().startswith("<?xml")
    assert first.read_bytes() == second.read_bytes()


def test_a_service_has_recovered_when_every_later_half_minute_is_as_good_as_before(bench):
    trouble = bench("routing_trouble")
    n = int(60 / trouble.STEP)  # points in a minute
    well, down = [1.0] * n, [0.0] * (n // 2)
    assert trouble.recovery([*well, *down, *well, *well], 90.0) == 0.0
    assert trouble.recovery([*well, *down, *down, *well, *well], 90.0) == 30.0
    assert trouble.recovery([*well, *down, *well, 0.0, 0.0, *well], 90.0) == pytest.approx(60 + 2 * trouble.STEP)
    assert trouble.recovery([*well, *down, *down, *down, *down], 90.0) == float("inf")


def test_prompts_that_begin_alike_have_their_first_blocks_in_common(bench):
    blocks, size = bench("modelled_engine").blocks, 512
    shared = ["word"] * (2 * size)
    one, other = blocks([*shared, *["one"] * size]), blocks([*shared, *["other"] * size, "more"])
    assert one[:2] == other[:2]
    assert len({*one, *other}) == 4
    assert blocks(["word"] * (size - 1)) == []


def test_what_is_late_happens_at_the_time_for_which_it_was_due(bench, monkeypatch):
    engine = bench("modelled_engine")
    clock = iter([100.0, 100.0, 107.0])  # when it began, and at each look
    monkeypatch.setattr(engine, "perf_counter", lambda: next(clock))
    live = engine.RealTime(2.0)
    world = live.world
    seen = []
    world.at(8.0, lambda: seen.append(world.now))
    world.at(4.0, lambda: seen.append(world.now))
    world.at(99.0, lambda: seen.append(world.now))
    live.catch_up()
    assert seen == []
    assert world.now == 0.0
    live.catch_up()
    assert seen == [4.0, 8.0]
    assert world.now == 14.0


def test_an_unknown_part_is_a_mistake_and_not_a_run(bench, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["routing.py", "--only", "trace"])
    assert bench("routing").main() == 2
    assert "There is no trace. Parts: traces, tail" in capsys.readouterr().out
