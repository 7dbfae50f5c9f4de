"""Amazon Bedrock: Converse for any model, InvokeModel for Claude in Anthropic's own dialect. Streams are binary frames.

Sources: the API references of Converse, ConverseStream and InvokeModelWithResponseStream.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from penstock.core.request import Endpoint, Request
from penstock.upstreams.anthropic import flags, through_hub
from penstock.upstreams.way import Asking, Terms, Way
from penstock.wire import converse
from penstock.wire.anthropic import MessagesMeter, upstream_fields
from penstock.wire.bedrock_streams import ConverseTranslated, Unwrapped, UnwrappedTranslated
from penstock.wire.converse_answer import ConverseReader, failure_of
from penstock.wire.dialects import CALLERS, translated
from penstock.wire.hosted_claude import bedrock_body, bedrock_path

MEDIA: Final = b"application/vnd.amazon.eventstream"


def converse_ways(terms: Terms) -> dict[Endpoint, Way]:
    """Any model that Converse has; every dialect of callers is translated."""
    served = terms.served_in_path()

    def hub(request: Request) -> Asking:
        return translated(
            request,
            lambda ask, losses: converse.write_request(ask, served=served, losses=losses),
            lambda ask: ConverseReader(ask, served=served),
            terms.lose,
            terms.clock.wall(),
            ConverseTranslated,
        )

    return dict.fromkeys(CALLERS, _way(terms, converse.path, hub))


def invoke_ways(terms: Terms) -> dict[Endpoint, Way]:
    """Claude in its own dialect; flags that Bedrock would not know stay here and are told as lost."""

    def messages(request: Request) -> Asking:
        allowed, lost = flags(request, terms.betas)
        return bedrock_body(upstream_fields(request), allowed), Unwrapped(MessagesMeter()), lost

    hub = _way(terms, bedrock_path, through_hub(terms, bedrock_body, UnwrappedTranslated))
    return dict.fromkeys(CALLERS, hub) | {Endpoint.MESSAGES: _way(terms, bedrock_path, messages)}


def _way(terms: Terms, path: Callable[..., str], ask: Callable[[Request], Asking]) -> Way:
    served = terms.served_in_path()
    return Way(
        terms.base_path + path(served, stream=False),
        ask,
        failure_of,
        stream_path=terms.base_path + path(served, stream=True),
        media=MEDIA,
    )
