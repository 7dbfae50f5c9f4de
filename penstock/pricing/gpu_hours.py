"""What a token costs on machines that are paid by the hour, whether or not anybody asks them for tokens.

    $ per token = ($ per GPU-hour x GPUs) / (tokens per second x 3600)

once with the speed at which prompts are read and once with the speed at which answers are written, each measured on the
whole replica (all its GPUs) while it did nothing else, at the load it is meant for. A request is then charged the time
that it would have had the replica to itself for. Hours in which nobody asked are in no request's cost: the difference
between the bill and the sum of all requests is what was not used. A prompt token that was found in the KV cache costs
what any other does unless the configuration says otherwise.
"""

from __future__ import annotations

from penstock.pricing.rates import Rates

SECONDS_PER_HOUR = 3600


def rates_from_gpu_hours(
    gpu_hour_picos: int,
    gpus: int,
    *,
    input_tokens_per_second: int,
    output_tokens_per_second: int,
    cached_input: int | None = None,
) -> Rates:
    """Of a replica with `gpus` GPUs; speeds are those of the whole replica. Rounded up to a whole pico-dollar, so that
    nothing that costs something becomes free."""
    assert gpu_hour_picos > 0 < gpus, (gpu_hour_picos, gpus)
    hour = gpu_hour_picos * gpus
    return Rates(
        input=_per_token(hour, input_tokens_per_second),
        cached_input=cached_input,
        output=_per_token(hour, output_tokens_per_second),
    ).complete()


def _per_token(hour_picos: int, tokens_per_second: int) -> int:
    assert tokens_per_second > 0, tokens_per_second
    return -(-hour_picos // (tokens_per_second * SECONDS_PER_HOUR))
