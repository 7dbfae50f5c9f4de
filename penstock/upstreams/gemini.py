"""Google: Gemini with an API key or on Vertex AI, and Claude on Vertex AI in Anthropic's own dialect.

Sources: the references of generateContent and streamGenerateContent, and Anthropic's page on Claude on Vertex AI.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

from penstock.core.request import Endpoint, Request
from penstock.upstreams.anthropic import flag_line, flags, through_hub
from penstock.upstreams.way import Asking, Terms, Way
from penstock.wire import anthropic, gemini
from penstock.wire.dialects import CALLERS, translated
from penstock.wire.gemini_answer import GeminiReader, failure_of
from penstock.wire.hosted_claude import vertex_body
from penstock.wire.readings import Passing
from penstock.wire.unary import Whole


def gemini_ways(terms: Terms) -> dict[Endpoint, Way]:
    """Every dialect of callers is translated. `served` may be a resource, such as `tunedModels/...`."""
    served = terms.served_in_path()
    model = f"{terms.base_path}/{quote(served if '/' in served else f'models/{served}', safe='/@')}"

    def hub(request: Request) -> Asking:
        return translated(
            request,
            lambda ask, losses: gemini.write_request(ask, served=served, losses=losses),
            lambda ask: GeminiReader(ask, id=request.id),
            terms.lose,
            terms.clock.wall(),
        )

    way = Way(f"{model}:generateContent", hub, failure_of, stream_path=f"{model}:streamGenerateContent?alt=sse")
    return dict.fromkeys(CALLERS, way)


def claude_ways(terms: Terms) -> dict[Endpoint, Way]:
    models = f"{terms.base_path}/models"
    model = f"{models}/{quote(terms.served_in_path(), safe='@')}"
    name, betas = terms.model, terms.betas

    def messages(request: Request) -> Asking:
        body = vertex_body(anthropic.upstream_fields(request))
        return body, Passing(anthropic.MessagesMeter()), flags(request, betas)[1]

    def count(request: Request) -> Asking:
        return vertex_body(anthropic.upstream_fields(request), name), Whole(), flags(request, betas)[1]

    def headers(request: Request) -> bytes:
        return flag_line(request, betas)

    def predict(ask: Callable[[Request], Asking]) -> Way:
        stream_path = f"{model}:streamRawPredict"
        return Way(f"{model}:rawPredict", ask, anthropic.failure_of, stream_path=stream_path, headers=headers)

    return dict.fromkeys(CALLERS, predict(through_hub(terms, vertex_body))) | {
        Endpoint.MESSAGES: predict(messages),
        Endpoint.COUNT_TOKENS: Way(f"{models}/count-tokens:rawPredict", count, anthropic.failure_of, headers=headers),
    }
