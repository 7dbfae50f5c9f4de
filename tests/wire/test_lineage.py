"""What a prompt was made of, as its caller says."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import BadRequest
from penstock.wire.lineage import MAX_IDS, NO_LINEAGE, lineage


def said(body="{}", **headers):
    known = {name.replace("_", "-").encode(): value.encode("latin-1") for name, value in headers.items()}
    return lineage(known.get, msgspec.json.decode(body, type=dict[str, msgspec.Raw]))


def test_headers_say_the_version_of_the_prompt_and_what_was_retrieved_for_it():
    assert said(x_penstock_prompt_version="support/v12", x_penstock_context="doc-1, doc-2#3,,doc-1") == (
        "support/v12",
        ("doc-1", "doc-2#3", "doc-1"),
    )


@pytest.mark.parametrize("context", ['"doc-1, doc-2"', '["doc-1", "doc-2"]'])
def test_programs_that_cannot_set_headers_say_it_in_the_metadata(context):
    body = f'{{"metadata": {{"prompt_version": "v1", "context": {context}, "mine": 1}}}}'
    assert said(body) == ("v1", ("doc-1", "doc-2"))


def test_a_header_is_stronger_than_the_body():
    body = '{"metadata": {"prompt_version": "v1", "context": "doc-1"}}'
    assert said(body, x_penstock_prompt_version="v2") == ("v2", ("doc-1",))
    assert said(body, x_penstock_context="doc-9") == ("v1", ("doc-9",))


def test_nothing_said_is_nothing():
    assert said() == said('{"metadata": null}') == said('{"metadata": {}}') == NO_LINEAGE


@pytest.mark.parametrize("header", ["a b", "-a", "a" * 129, "", "a\tb", "é"])
def test_a_version_that_is_not_as_documented_is_told(header):
    with pytest.raises(BadRequest, match="x-penstock-prompt-version must be"):
        said(x_penstock_prompt_version=header)


@pytest.mark.parametrize("header", ["a b", ",".join(["a"] * (MAX_IDS + 1))])
def test_a_context_that_is_not_as_documented_is_told(header):
    with pytest.raises(BadRequest, match="x-penstock-context must be"):
        said(x_penstock_context=header)


@given(
    st.recursive(
        st.none() | st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_no_metadata_is_too_odd(metadata):
    _, context = said(msgspec.json.encode({"metadata": metadata}).decode())
    assert len(context) <= MAX_IDS
