"""Public clients, unchanged but for their base URL, get from Penstock what they get from the provider behind it.

Each is tried on the provider itself too: what fails there is the program's fault or the provider's, not ours.
"""

import pytest

from tests.clients.matrix import CLIENTS
from tests.conformance.script import GREETING, RETRY_AFTER

pytestmark = [
    pytest.mark.journey,
    pytest.mark.timeout(900),  # the first of them installs the clients
    pytest.mark.parametrize("target", ["provider", "penstock-openai", "penstock-anthropic"]),
    pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name),
]


def test_the_answer_and_its_usage_arrive(client, target, told):
    assert told(client)[target]["chat"] == GREETING


def test_a_stream_arrives_piece_by_piece(client, target, told):
    assert told(client)[target]["stream"] == {"text": GREETING, "in_pieces": True}


def test_two_tools_called_at_once_come_back_with_their_results(client, target, told):
    assert told(client)[target]["tools"] == "Results: 21 degrees; 12 degrees"


def test_an_answer_of_a_schema_is_of_that_schema(client, target, told):
    assert told(client)[target]["schema"] == {"city": "Paris", "degrees": 21}


def test_a_model_that_is_not_there_is_the_clients_own_error_for_that(client, target, told):
    error = told(client)[target]["unknown"]
    assert (error["error"], error["status"]) == (client.unknown, 404), error


def test_a_rate_limit_is_the_clients_own_error_for_that_and_says_when_to_come_back(client, target, told):
    error = told(client)[target]["limited"]
    assert (error["error"], error["status"]) == (client.limited, 429), error
    assert 0 < int(error["retry_after"]) <= RETRY_AFTER
