"""A configuration without its secrets: nothing is lost, nothing is told, and edits find their way back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.console.masked import Masked

DIGEST = "ab" * 32
OTHER = "cd" * 32
TEXT = f"""\
deployments:
  a: {{ provider: openai, api_key: sk-of-the-provider, price: {{ input: $1/M }} }}
  b: {{ provider: other, api_key: "env:B_KEY" }}
store: {{ database: postgres://me:a-password@db/books }}
keys:
  - {{ id: web, sha256: {DIGEST} }}
  - id: lab
    hmac: '{OTHER}'
"""


def test_digests_and_secrets_have_names_and_are_put_back_where_these_stand():
    masked = Masked(TEXT)
    for hidden in (DIGEST, OTHER, "sk-of", "a-password"):
        assert hidden not in masked.text
    assert "sha256: (digest" in masked.text and "api_key: (secret" in masked.text
    assert masked.complete(masked.text) == TEXT


def test_entries_may_be_moved_taken_out_and_changed():
    masked = Masked(TEXT)
    *first, web, lab, hmac = masked.text.splitlines(keepends=True)
    assert masked.complete("".join([*first, lab, hmac])) == TEXT.replace(f"  - {{ id: web, sha256: {DIGEST} }}\n", "")
    assert DIGEST in masked.complete(web.replace("id: web", "id: shop, org: acme"))


@pytest.mark.parametrize("text", ["id: {}", "sha256x: {}", "{}", "sha256 {}", "hmac: {}", "sha256: x{}"])
def test_nothing_is_put_back_behind_another_option(text):
    masked = Masked(f"sha256: {DIGEST}")
    assert masked.text == "sha256: (digest 1)"
    edited = text.format("(digest 1)")
    assert masked.complete(edited) == edited


def test_names_that_mean_nothing_stay_as_they_are():
    assert Masked("models: {}").complete("sha256: (digest 9)") == "sha256: (digest 9)"


@given(cut=st.integers(8, 64), before=st.text(max_size=20), after=st.text(alphabet=" .,;'x", max_size=9))
def test_what_is_told_never_has_a_secret_in_it_even_if_it_is_cut(cut, before, after):
    told = Masked(TEXT).hide(f"{before}{DIGEST[:cut]}{after}")
    assert DIGEST[:8] not in told


@pytest.mark.parametrize("secret", ["secret 1", "(secret 1)", "aaaaaaaaaaaaaaaa", "***", "x"])
def test_odd_secrets_end_in_nothing_worse_than_an_odd_line(secret):
    masked = Masked(f"password: {secret}")
    assert masked.complete(masked.text) == f"password: {secret}"
    assert isinstance(masked.hide(f"{secret} {secret} and more"), str)


@given(st.text(alphabet="ab:= \n{},'\"*/@", max_size=80), st.text(alphabet="ab:= \n{},'\"*/@", max_size=80))
def test_whatever_the_text_is_it_comes_back_whole(before, after):
    text = f"{before}api_key: sk-something-long, sha256: {DIGEST}\n{after}"
    masked = Masked(text)
    assert DIGEST not in masked.text and "something" not in masked.text
    assert masked.complete(masked.text) == text
