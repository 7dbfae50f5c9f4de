"""`penstock simulate`: a table for people, JSON for scripts, a page to look at, and mistakes with their lines."""

import json
from pathlib import Path

SCENARIO = """\
models:
  chat: { deployments: [pool] }
deployments:
  pool: { engine: [http://10.0.0.1:8000/v1, http://10.0.0.2:8000/v1] }
traffic:
  - { arrivals: { kind: poisson, rate: 5 }, requests: 30, tenant: a }
  - { arrivals: { kind: poisson, rate: 5 }, requests: 30, tenant: b }
simulation:
  policies: [least_cost, round_robin]
"""


def test_policies_are_told_side_by_side_and_written_as_json_and_as_a_page(penstock):
    Path("s.yaml").write_text(SCENARIO)
    ran = penstock("simulate", "s.yaml", "--json", "out.json", "--html", "out.html")
    assert ran.code == 0
    assert "60 requests" in ran.out
    lines = [line.split()[0] for line in ran.out.splitlines() if line.strip()]
    assert lines.index("least_cost") < lines.index("round_robin")
    assert "tenant" in ran.out
    said = json.loads(Path("out.json").read_text())
    assert [run["policy"]["name"] for run in said["runs"]] == ["least_cost", "round_robin"]
    assert said["runs"][0]["results"]["requests"] == 60
    page = Path("out.html").read_text()
    assert "round_robin" in page
    assert "http-equiv" in page or "<!doctype html>" in page.lower()


def test_the_same_seed_prints_the_same_and_another_one_not(penstock):
    Path("s.yaml").write_text(SCENARIO)
    first, again = penstock("simulate", "s.yaml", "--seed", "1"), penstock("simulate", "s.yaml", "--seed", "1")
    other = penstock("simulate", "s.yaml", "--seed", "2")
    assert first.out == again.out != other.out


def test_other_policies_than_the_scenarios_may_be_asked_for(penstock):
    Path("s.yaml").write_text(SCENARIO)
    ran = penstock("simulate", "s.yaml", "--policy", "power_of_two")
    assert ran.code == 0
    assert "power_of_two" in ran.out
    assert "round_robin" not in ran.out
    wrong = penstock("simulate", "s.yaml", "--policy", "power_of_too")
    assert wrong.code == 2
    assert "Did you mean `power_of_two`?" in wrong.err


def test_mistakes_are_told_with_their_lines(penstock):
    Path("s.yaml").write_text(SCENARIO.replace("round_robin", "rond_robin"))
    ran = penstock("simulate", "s.yaml")
    assert ran.code == 2
    assert "s.yaml:9: simulation.policies[1] is no policy: 'rond_robin'. Did you mean `round_robin`?" in ran.err


def test_a_file_or_a_trace_that_is_not_there_is_a_mistake(penstock):
    assert penstock("simulate", "nowhere.yaml").err == "there is no nowhere.yaml\n"
    Path("s.yaml").write_text(
        SCENARIO.replace("{ kind: poisson, rate: 5 }", "{ kind: trace, file: t.jsonl, format: mooncake }", 1)
    )
    ran = penstock("simulate", "s.yaml")
    assert ran.code == 2
    assert "there is no trace t.jsonl" in ran.err


def test_a_profile_needs_different_batches_and_prompts(penstock, server):
    wrong = penstock("profile", server.url, "--batches", "4")
    assert wrong.code == 2
    assert "at least two sizes" in wrong.err
    wrong = penstock("profile", server.url, "--batches", "1,many")
    assert "'1,many' is not a list such as 1,4,16" in wrong.err
    ran = penstock("profile", server.url, "--batches", "1,2", "--longest", "64")
    assert ran.code == 1
    assert "a fit needs at least two batch sizes and two prompt lengths" in ran.err


def test_a_profile_of_a_server_that_is_not_there_says_so(penstock):
    ran = penstock("profile", "http://127.0.0.1:9")
    assert ran.code == 1
    assert "127.0.0.1:9" in ran.err
