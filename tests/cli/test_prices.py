"""`penstock prices`: what a person sees."""

import json

import pytest

from penstock.cli.main import run

OLD = """{"format": 1, "unit": "", "catalogues": [], "rows": [
  {"provider": "openai", "model": "gpt-9", "input": "2.5", "cached_input": "0.25", "output": "10",
   "tiers": [{"above": 200000, "input": "5", "output": "15"}], "batch": {"input": "1.25", "output": "5"}},
  {"provider": "openai", "model": "gpt-9", "valid_from": "2100-01-01", "input": "1", "output": "2"},
  {"provider": "azure", "model": "gpt-9", "input": "2.5", "output": "10"},
  {"provider": "openai", "model": "eyes", "free": true}]}"""


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "table.json"
    path.write_text(OLD)
    return path


def test_a_model_is_shown_with_what_it_costs_here_and_now(table, capsys):
    assert run(["prices", "show", "openai/gpt-9", "--table", str(table)]) == 0
    assert capsys.readouterr().out == (
        "openai/gpt-9\n"
        "  standard\n"
        "    input           $2.50/M\n"
        "    cached_input    $0.25/M\n"
        "    output          $10.00/M\n"
        "  standard, prompts above 200,000 tokens\n"
        "    input           $5.00/M\n"
        "    output          $15.00/M\n"
        "  batch\n"
        "    input           $1.25/M\n"
        "    output          $5.00/M\n"
        "  batch, prompts above 200,000 tokens\n"
        "    input           $5.00/M\n"
        "    output          $15.00/M\n"
    )


def test_a_model_is_shown_as_on_another_day(table, capsys):
    assert run(["prices", "show", "openai/gpt-9", "--table", str(table), "--at", "2100-01-01"]) == 0
    shown = capsys.readouterr().out
    assert "input           $1.00/M" in shown
    assert "since 2100-01-01" in shown


def test_without_a_model_each_has_a_line(table, capsys):
    assert run(["prices", "show", "--table", str(table)]) == 0
    lines = sorted(capsys.readouterr().out.splitlines())
    assert lines == [
        "azure/gpt-9   input $2.50/M, output $10.00/M",
        "openai/eyes   free",
        "openai/gpt-9  input $2.50/M, output $10.00/M",
    ]


def test_json_has_every_rate_as_it_would_be_charged(table, capsys):
    assert run(["prices", "show", "gpt-9", "--table", str(table), "--provider", "azure", "--json"]) == 0
    (said,) = json.loads(capsys.readouterr().out)
    assert (said["provider"], said["model"], said["free"]) == ("azure", "gpt-9", False)
    (rates,) = said["services"]["standard"]
    assert (rates["above"], rates["input"], rates["cache_write_1h"], rates["reasoning"]) == (0, "2.50", "2.50", "10.00")


def test_a_model_without_a_price_is_not_called_free_and_near_names_are_offered(table, capsys):
    assert run(["prices", "show", "gpt9", "--table", str(table)]) == 2
    error = capsys.readouterr().err
    assert "'gpt9' has no price on that day: requests to it are not priced, and not free." in error
    assert "openai/gpt-9" in error


def test_the_table_that_came_along_is_shown_without_a_file(capsys):
    assert run(["prices", "show", "openai/gpt-5"]) == 0
    assert "$1.25/M" in capsys.readouterr().out


def test_two_tables_are_compared_class_by_class(table, tmp_path, capsys):
    new = tmp_path / "new.json"
    new.write_text(OLD.replace('"cached_input": "0.25"', '"cached_input": "0.125"'))
    assert run(["prices", "diff", str(table), str(new)]) == 1
    assert "~ openai/gpt-9 cached_input: $0.25/M -> $0.125/M" in capsys.readouterr().out.splitlines()
    assert run(["prices", "diff", str(new), str(new)]) == 0
    assert "say the same prices" in capsys.readouterr().out


def test_a_file_that_is_missing_or_wrong_is_a_mistake_that_is_told_plainly(table, tmp_path, capsys):
    assert run(["prices", "diff", str(table), str(tmp_path / "none.json")]) == 2
    assert f"there is no {tmp_path / 'none.json'}" in capsys.readouterr().err
    table.write_text("{}")
    assert run(["prices", "show", "--table", str(table)]) == 2
    assert "not a file of prices" in capsys.readouterr().err
