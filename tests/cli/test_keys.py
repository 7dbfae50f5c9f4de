"""The form of a key: what `penstock key create` makes and the gateway's table holds."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.keys import ENTROPY_BYTES, digest, mint, public_part, well_formed

entropies = st.binary(min_size=ENTROPY_BYTES, max_size=ENTROPY_BYTES)


@given(entropies)
def test_every_key_has_the_documented_form(entropy):
    key = mint(entropy)
    head, public, rest = key.removeprefix("sk-").split("-")
    assert (head, len(public), len(rest)) == ("pen", 8, 49)
    assert key.isascii()
    assert well_formed(key)
    assert public_part(key) == public


@given(entropies, entropies)
def test_different_entropy_gives_different_keys(one, other):
    assert (mint(one) == mint(other)) == (one == other)


@given(entropies, st.data())
def test_one_wrong_character_is_noticed(entropy, data):
    key = mint(entropy)
    place = data.draw(st.integers(0, len(key) - 1))
    wrong = data.draw(st.characters(min_codepoint=33, max_codepoint=126).filter(lambda c: c != key[place]))
    assert not well_formed(key[:place] + wrong + key[place + 1 :])


@given(st.text(max_size=80))
def test_other_text_is_not_a_key(text):
    assert not well_formed(text)


def test_the_digest_is_the_sha256_of_the_whole_key():
    key = mint(bytes(range(ENTROPY_BYTES)))
    assert digest(key) == hashlib.sha256(key.encode()).hexdigest()


def test_the_refusal_of_something_else_does_not_quote_it():
    with pytest.raises(ValueError, match="not a Penstock key") as refusal:
        public_part("sk-proj-somebody-elses-secret")
    assert "somebody" not in str(refusal.value)


def test_too_little_entropy_is_refused():
    with pytest.raises(ValueError, match="37 random bytes"):
        mint(b"short")
