"""`penstock migrate litellm`: the file, the report, and what happens when one of them cannot be."""

import json
import shutil
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "config" / "litellm"


@pytest.fixture
def config(tmp_path) -> Path:
    """LiteLLM's config.yaml in the folder where the command runs."""
    return Path(shutil.copy(FOLDER / "vllm_pool.yaml", tmp_path / "config.yaml"))


def test_the_file_is_written_and_is_good_as_it_is(penstock, config):
    ran = penstock("migrate", "litellm", "config.yaml")
    assert ran.code == 0
    assert "Wrote penstock.yaml." in ran.out
    assert "It reads from the environment: VLLM_API_KEY, KEY_OF_LLM_EXAMPLE_COM." in ran.out
    assert penstock("check").code == 0


def test_the_report_tells_each_setting_with_its_line(penstock, config):
    lines = penstock("migrate", "litellm", "config.yaml").out.splitlines()
    assert "  config.yaml:6: model_list[0].litellm_params.api_key: key: env:VLLM_API_KEY" in lines
    heads = [line.partition(" (")[0] for line in lines if line and not line.startswith(" ")]
    assert heads[:3] == ["mapped", "approximated", "unsupported"]
    unsupported = lines[lines.index(next(line for line in lines if line.startswith("unsupported"))) :]
    assert any(line.startswith("  config.yaml:8: model_list[0].litellm_params.rpm: ") for line in unsupported)


def test_a_file_that_is_there_is_never_overwritten(penstock, config):
    Path("penstock.yaml").write_text("mine")
    ran = penstock("migrate", "litellm", "config.yaml")
    assert ran.code == 2
    assert "is left as it is" in ran.err
    assert Path("penstock.yaml").read_text() == "mine"
    assert penstock("migrate", "litellm", "config.yaml", "-o", "other.yaml").code == 0
    assert penstock("check", "other.yaml").code == 0


def test_on_stdout_is_the_file_alone_and_the_report_is_beside_it(penstock, config):
    ran = penstock("migrate", "litellm", "config.yaml", "-o", "-")
    assert ran.code == 0
    assert "unsupported (" in ran.err
    Path("piped.yaml").write_text(ran.out)
    assert penstock("check", "piped.yaml").code == 0
    assert not Path("penstock.yaml").exists()


def test_scripts_get_the_report_as_json(penstock, config):
    told = json.loads(penstock("migrate", "litellm", "config.yaml", "--json").out)
    assert told["written"] == "penstock.yaml"
    assert told["variables"] == ["VLLM_API_KEY", "KEY_OF_LLM_EXAMPLE_COM"]
    assert {"outcome": "mapped", "line": 6} in [
        {name: finding[name] for name in ("outcome", "line")} for finding in told["findings"]
    ]


def test_addresses_are_looked_up_in_the_environment_and_keys_are_not(penstock, monkeypatch):
    monkeypatch.setenv("AZURE_API_BASE_US", "https://us.example.com")
    monkeypatch.setenv("AZURE_API_KEY_US", "the-very-secret")
    ran = penstock("migrate", "litellm", str(FOLDER / "azure_regions.yaml"))
    written = Path("penstock.yaml").read_text()
    assert "https://us.example.com" in written
    assert "the-very-secret" not in written + ran.out


def test_a_wildcard_is_written_for_the_models_that_are_named(penstock):
    penstock("migrate", "litellm", str(FOLDER / "wildcards.yaml"), "--name", "groq/qwen-3")
    assert "groq/qwen-3:" in Path("penstock.yaml").read_text()


def test_a_file_of_which_nothing_can_be_written_is_told_with_the_reasons(penstock):
    Path("config.yaml").write_text("model_list: [{ model_name: x, litellm_params: { model: sagemaker/x } }]")
    ran = penstock("migrate", "litellm", "config.yaml")
    assert ran.code == 1
    assert "Nothing was written" in ran.out
    assert "`sagemaker` is not a provider that Penstock knows" in ran.out
    assert not Path("penstock.yaml").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "config.yaml cannot be read: No such file or directory"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
        (b"model_list: [", "this is not YAML"),
        (b"- 1", "config.yaml:1: this is not LiteLLM's configuration"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_mistake_in_what_was_asked(penstock, content, told):
    if content is not None:
        Path("config.yaml").write_bytes(content)
    ran = penstock("migrate", "litellm", "config.yaml")
    assert ran.code == 2
    assert told in ran.err
