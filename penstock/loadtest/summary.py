"""From samples to what is reported. What was meant to be sent within the warm-up counts nowhere."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from penstock.loadtest.exchange import UNFINISHED
from penstock.loadtest.quantiles import Distribution, distribution, quantile
from penstock.loadtest.run import Run
from penstock.loadtest.sample import Sample, Slo

SLICES: Final = 120  # of the run, at most, in what is drawn over time


class Slice(msgspec.Struct, frozen=True):
    """What was meant to be sent in one stretch of the run, warm-up included. Seconds."""

    start: float
    requests: int
    failures: int
    in_flight: int  # at its end
    output_tokens: int
    ttft_p50: float | None
    ttft_p95: float | None


class TenantSummary(msgspec.Struct, frozen=True):
    requests: int
    failures: int
    good: float | None
    ttft: Distribution | None
    tpot: Distribution | None
    e2e: Distribution | None


class Summary(msgspec.Struct, frozen=True):
    """`ttft` and `e2e` are counted from when a request was meant to be sent, `..._from_sending` from when it was.

    `seconds` is from the end of the warm-up to the end of the last answer that is measured; rates are over it.
    """

    requests: int  # measured
    ok: int
    unfinished: int  # left when the run was stopped; neither ok nor failed
    failures: dict[str, int]
    examples: dict[str, str]
    warm_up_requests: int
    stopped: bool
    seconds: float
    ttft: Distribution | None
    tpot: Distribution | None
    itl: Distribution | None
    e2e: Distribution | None
    ttft_from_sending: Distribution | None
    e2e_from_sending: Distribution | None
    sent_late: Distribution | None
    held_back: int
    requests_per_second: float
    output_tokens_per_second: float
    prompt_tokens_per_second: float
    good: float | None  # fraction of the requests that met the SLO; None without one
    good_per_second: float | None
    prompt_tokens_wanted: float  # mean
    prompt_tokens: float | None  # mean, as the server counted
    cached_fraction: float | None  # of the prompt tokens, as the server says
    output_tokens_wanted: float
    output_tokens: float
    output_counted: bool  # by the server; else these are pieces
    pieces_per_token: float | None
    gaps_left_out: int
    tenants: dict[str, TenantSummary]
    replicas: dict[str, int]
    slices: tuple[Slice, ...]


def summary(run: Run, slo: Slo) -> Summary:
    measured = [s for s in run.samples if s.intended >= run.options.warm_up]
    finished = [s for s in measured if s.failure != UNFINISHED]
    ok = [s for s in finished if not s.failure]
    failures = Counter(s.failure for s in finished if s.failure)
    seconds = max((s.ended for s in finished), default=run.options.warm_up) - run.options.warm_up
    counted = [s for s in ok if s.prompt_tokens is not None]
    prompt_tokens = sum(s.prompt_tokens or 0 for s in counted)
    cached = [s for s in counted if s.cached_tokens is not None]
    output_tokens = sum(s.output_tokens for s in ok)
    good = sum(slo.met(s) for s in finished)
    by_tenant: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample in finished:
        by_tenant[sample.tenant].append(sample)

    def rate(n: float) -> float:
        return n / seconds if seconds > 0 else 0.0

    return Summary(
        requests=len(measured),
        ok=len(ok),
        unfinished=len(measured) - len(finished),
        failures=dict(failures.most_common()),
        examples=run.examples,
        warm_up_requests=len(run.samples) - len(measured),
        stopped=run.stopped,
        seconds=seconds,
        ttft=_ttft(ok),
        tpot=_tpot(ok),
        itl=distribution(run.gaps),
        e2e=_e2e(ok),
        ttft_from_sending=distribution([s.first - s.sent for s in ok if s.first is not None]),
        e2e_from_sending=distribution([s.ended - s.sent for s in ok]),
        sent_late=distribution([s.sent - s.intended for s in measured]),
        held_back=run.held_back,
        requests_per_second=rate(len(ok)),
        output_tokens_per_second=rate(output_tokens),
        prompt_tokens_per_second=rate(prompt_tokens),
        good=_fraction(good, len(finished)) if slo.asks else None,
        good_per_second=rate(good) if slo.asks else None,
        prompt_tokens_wanted=_fraction(sum(s.prompt_wanted for s in ok), len(ok)) or 0.0,
        prompt_tokens=_fraction(prompt_tokens, len(counted)),
        cached_fraction=_fraction(sum(s.cached_tokens or 0 for s in cached), sum(s.prompt_tokens or 0 for s in cached)),
        output_tokens_wanted=_fraction(sum(s.output_wanted for s in ok), len(ok)) or 0.0,
        output_tokens=_fraction(output_tokens, len(ok)) or 0.0,
        output_counted=all(s.counted for s in ok),
        pieces_per_token=_fraction(sum(s.pieces for s in ok), output_tokens),
        gaps_left_out=run.gaps_left_out,
        tenants={name: _tenant(of, slo) for name, of in sorted(by_tenant.items())} if len(by_tenant) > 1 else {},
        replicas=dict(Counter(s.replica for s in ok if s.replica).most_common()),
        slices=_slices(run),
    )


def _tenant(samples: Sequence[Sample], slo: Slo) -> TenantSummary:
    ok = [s for s in samples if not s.failure]
    return TenantSummary(
        requests=len(samples),
        failures=len(samples) - len(ok),
        good=_fraction(sum(slo.met(s) for s in samples), len(samples)) if slo.asks else None,
        ttft=_ttft(ok),
        tpot=_tpot(ok),
        e2e=_e2e(ok),
    )


def _ttft(ok: Iterable[Sample]) -> Distribution | None:
    return distribution([s.first - s.intended for s in ok if s.first is not None])


def _tpot(ok: Iterable[Sample]) -> Distribution | None:
    return distribution([tpot for s in ok if (tpot := s.tpot) is not None])


def _e2e(ok: Iterable[Sample]) -> Distribution | None:
    return distribution([s.ended - s.intended for s in ok])


def _fraction(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _slices(run: Run) -> tuple[Slice, ...]:
    end = max((s.ended for s in run.samples), default=0.0)
    width = max(1.0, end / SLICES)
    slices: list[list[Sample]] = [[] for _ in range(int(end / width) + 1)]
    for sample in run.samples:
        slices[min(len(slices) - 1, int(sample.intended / width))].append(sample)
    starts = sorted(s.sent for s in run.samples)
    ends = sorted(s.ended for s in run.samples)
    made = []
    n_started = n_ended = 0
    for i, samples in enumerate(slices):
        until = (i + 1) * width
        while n_started < len(starts) and starts[n_started] < until:
            n_started += 1
        while n_ended < len(ends) and ends[n_ended] < until:
            n_ended += 1
        ok = [s for s in samples if not s.failure]
        ttfts = sorted(s.first - s.intended for s in ok if s.first is not None)
        made.append(
            Slice(
                start=i * width,
                requests=len(samples),
                failures=sum(s.failure not in ("", UNFINISHED) for s in samples),
                in_flight=n_started - n_ended,
                output_tokens=sum(s.output_tokens for s in ok),
                ttft_p50=quantile(ttfts, 0.5) if ttfts else None,
                ttft_p95=quantile(ttfts, 0.95) if ttfts else None,
            )
        )
    return tuple(made)
