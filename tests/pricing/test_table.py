"""The table that comes along, and the file that it is in."""

import random

import pytest

from penstock.config.providers import PROVIDERS
from penstock.core.request import Usage
from penstock.pricing.cost import cost_of, max_cost_nanos
from penstock.pricing.differences import differences
from penstock.pricing.rates import CLASSES
from penstock.pricing.table_file import BUNDLED, PriceFileError, read_table, read_written, write_table
from tests.pricing.worlds import NOW

TEXT = BUNDLED.read_bytes()
TABLE = read_table(TEXT)


def one_row(row: str) -> bytes:
    return b'{"format":1,"unit":"","catalogues":[],"rows":[{"provider":"p","model":"m",' + row.encode() + b"}]}"


def test_the_table_that_comes_along_is_written_as_the_script_writes_it():
    written = read_written(TEXT)
    shuffled = list(written.rows)
    random.Random(4).shuffle(shuffled)
    assert write_table(written.catalogues, tuple(shuffled)) == TEXT


def test_every_price_is_of_a_provider_that_a_deployment_can_name():
    assert {price.provider for price in TABLE} <= PROVIDERS.keys()


def test_every_source_has_a_licence_and_says_which_bytes_it_was():
    assert TABLE.catalogues
    assert all(one.licence == "MIT" and len(one.sha256) == 64 and one.copyright for one in TABLE.catalogues)


def test_nothing_in_the_table_is_zero_without_being_called_free():
    for price in TABLE:
        for row in price.rows:
            for tiers in row.schedules.values():
                assert row.free or any(tiers[0].rates.of(name) for name in CLASSES), price


def test_no_cached_token_costs_more_than_one_that_is_not():
    """Nobody sells that: it would be a mistake in the catalogue, such as two columns in the wrong order."""
    for price in TABLE:
        for row in price.rows:
            rates = row.schedules["standard"][0].rates
            if rates.input:
                assert rates.cached_input <= rates.input, price


@pytest.mark.parametrize(
    ("provider", "model", "nanos"),
    [
        # from the providers' own pages, 2026-11: input and output of a million tokens each, below every length
        ("openai", "gpt-5", 1_250 + 10_000),
        ("openai", "gpt-4o-mini", 150 + 600),
        ("anthropic", "claude-haiku-4-5", 1_000 + 5_000),
        ("anthropic", "claude-opus-5-5", 4_000 + 20_000),
        ("gemini", "gemini-2.5-pro", 1_250 + 10_000),
        ("mistral", "mistral-large-latest", 500 + 1_500),
    ],
)
def test_well_known_models_cost_what_is_known(provider, model, nanos):
    assert cost_of(Usage(1_000, 1_000), TABLE.find(provider, model), NOW).nanos == nanos * 1_000


def test_every_price_of_the_table_bounds_what_it_charges():
    usage = Usage(300_000, 5_000, 100_000, 50_000, 20_000, 2_000)
    for price in TABLE:
        for service in ("standard", "batch", "priority"):
            cost, bound = (
                cost_of(usage, price, NOW, service=service),
                max_cost_nanos(300_000, 5_000, price, NOW, service=service),
            )
            assert not cost.priced or 0 <= cost.nanos <= bound, price


def test_a_model_is_found_by_its_exact_name_and_no_other():
    assert TABLE.find("openai", "gpt-5") is not None
    assert TABLE.find("openai", "gpt-5-turbo-xl") is None
    assert TABLE.find("openai", "GPT-5") is None
    assert "openai/gpt-5-mini" in TABLE.near("gpt5-mini")


@pytest.mark.parametrize(
    ("row", "wrong"),
    [
        ('"input":"0"', "does not say that it is `free`"),
        ('"input":"1","free":true', "free and has a price"),
        ('"input":"1e3"', "not a number of dollars per million tokens"),
        ('"input":"-1"', "not a number of dollars per million tokens"),
        ('"input":"0.0000001"', "not a number of dollars per million tokens"),
        ('"input":1.5', "Expected `str | null`"),
        ('"inputs":"1"', "unknown field `inputs`"),
        ('"input":"1","tiers":[{"above":0,"input":"2"}]', "from 1 on"),
        ('"input":"1","tiers":[{"above":5,"input":"2"},{"above":5,"input":"3"}]', "must be different"),
        ('"input":"1"},{"provider":"p","model":"m","input":"2"', "two rows from the same day on"),
    ],
)
def test_a_file_that_is_wrong_is_refused_and_says_where(row, wrong):
    with pytest.raises(PriceFileError, match=wrong):
        read_table(one_row(row))


def test_a_file_of_a_later_format_is_refused():
    with pytest.raises(PriceFileError, match="format 2"):
        read_table(b'{"format":2,"unit":"","catalogues":[],"rows":[]}')


def test_every_kind_of_difference_is_told():
    old = read_table(
        b'{"format":1,"unit":"","catalogues":[],"rows":['
        b'{"provider":"p","model":"gone","input":"1"},'
        b'{"provider":"p","model":"free","input":"1"},'
        b'{"provider":"p","model":"kept","input":"1","output":"2","batch":{"input":"0.5","output":"1"}}]}'
    )
    new = read_table(
        b'{"format":1,"unit":"","catalogues":[],"rows":['
        b'{"provider":"p","model":"free","free":true},'
        b'{"provider":"p","model":"kept","input":"1","output":"2","batch":{"input":"0.25","output":"1"}},'
        b'{"provider":"p","model":"kept","valid_from":"2027-01-01","input":"3","output":"4"},'
        b'{"provider":"p","model":"new","input":"1","request":"0.01"}]}'
    )
    lines = list(differences(old, new))
    assert lines[0] == "~ p/free: input $1.00/M -> free"
    assert lines[1] == "- p/gone"
    assert "~ p/kept batch input: $0.50/M -> $0.25/M" in lines
    assert "+ p/kept from 2027-01-01: input $3.00/M, output $4.00/M" in lines
    assert lines[-1] == "+ p/new: input $1.00/M, request $0.01 each"
    assert list(differences(new, new)) == []
