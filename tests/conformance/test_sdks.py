"""The public SDKs' own generated API tests pass against Penstock as they do against a provider."""

import pytest

from tests.clients.environments import SDISTS, version
from tests.clients.gateway import KEY_VARIABLE, gateway
from tests.conformance import suites

pytestmark = [pytest.mark.journey, pytest.mark.timeout(900), pytest.mark.usefixtures("sdks")]
SDKS = ["openai", "anthropic"]
BASE_PATH = {"openai": "/v1", "anthropic": ""}
MORE_MODELS = {
    "openai": ["gpt-scripted", "omni-moderation-latest", "dall-e-2"],  # the last two: where a request names none
    "anthropic": [],
}


@pytest.mark.parametrize("name", SDKS)
def test_every_test_file_of_the_sdk_is_run_or_has_its_reason(name):
    assert suites.not_accounted_for(name) == []


@pytest.mark.parametrize("name", SDKS)
def test_the_sdk_and_its_tests_are_of_one_version(name):
    assert f"\n{name}=={version(name)} " in SDISTS.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", SDKS)
def test_the_scripted_upstream_answers_as_the_sdk_expects_of_a_provider(name, provider, tmp_path):
    outcomes = suites.run(name, f"http://127.0.0.1:{provider.port}{BASE_PATH[name]}", tmp_path)
    allowed = [entry for entry in suites.suite(name).refused if "the SDK" in entry.reason]
    failed = {test: outcome for test, outcome in outcomes.items() if outcome != "passed"}
    assert {test: outcome for test, outcome in failed.items() if not any(one.fits(test) for one in allowed)} == {}


@pytest.mark.parametrize("name", SDKS)
def test_penstock_in_front_of_a_provider_answers_as_the_sdk_expects(name, provider, tmp_path):
    config = {
        "models": {model: {"deployments": ["one"]} for model in [*suites.models(name), *MORE_MODELS[name]]},
        # `penstock` is the kind of engine that has every endpoint of both APIs
        "deployments": {
            "one": {"engine": provider.address, "software": "penstock", "health": "off", "key": f"env:{KEY_VARIABLE}"}
        },
    }
    with gateway(config, tmp_path) as origin:
        outcomes = suites.run(name, origin + BASE_PATH[name], tmp_path)
    wrong = suites.surprises(suites.suite(name), outcomes)
    assert wrong == [], f"{len(wrong)} of {len(outcomes)}:\n" + "\n".join(wrong[:40])
