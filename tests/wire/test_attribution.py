"""What a request says about whom and what it is for."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import BadRequest
from penstock.core.keys import USERS, Pepper, user_hash
from penstock.core.request import UNATTRIBUTED
from penstock.wire.attribution import MAX_TAGS, OTHER, Vocabulary, attribution

SECRET = Pepper(b"a pepper of some length").user_secret


def said(headers=None, body=b"{}", org="acme", secret=SECRET, vocabulary=None):
    lines = {f"x-penstock-{name}".encode(): value for name, value in (headers or {}).items()}
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    return attribution(lines.get, fields, org, secret, vocabulary or Vocabulary())


def test_a_request_that_says_nothing_is_attributed_to_nothing():
    assert said() is UNATTRIBUTED
    assert said(body=b'{"metadata":{"topic":"x"},"model":"chat"}') is UNATTRIBUTED


@pytest.mark.parametrize(
    "body",
    [
        b'{"user":"ann"}',
        b'{"safety_identifier":"ann","user":"old"}',
        b'{"user":null,"metadata":{"user_id":"ann"}}',
        b'{"metadata":{"user_id":"ann","more":[1]}}',
    ],
)
def test_an_end_user_is_found_where_each_dialect_writes_them_and_a_header_goes_first(body):
    assert said(body=body) == said({"user": b"ann"})
    assert said({"user": b"bob"}, body) == said({"user": b"bob"})
    assert said(body=body).user_hash == user_hash(b"ann", "acme", SECRET)


@pytest.mark.parametrize(
    "body", [b'{"user":7}', b'{"metadata":{"user_id":["ann"]}}', b'{"metadata":"ann"}', b'{"user":""}']
)
def test_a_body_that_names_nobody_is_the_upstreams_affair(body):
    assert said(body=body) is UNATTRIBUTED


def test_headers_carry_feature_session_and_tags_in_one_order():
    found = said({"feature": b"search/v2", "session": b"s-1", "tags": b"env=prod, beta,env=prod"})
    assert (found.feature, found.session, found.tags) == ("search/v2", "s-1", ("beta", "env=prod"))
    assert found == said({"feature": b"search/v2", "session": b"s-1", "tags": b"beta,env=prod"})


@given(st.binary(min_size=1, max_size=30), st.binary(min_size=1, max_size=30))
def test_a_users_hash_is_their_own_in_their_organisation_and_says_nothing_of_them(one, other):
    first = user_hash(one, "acme", SECRET)
    assert (first == user_hash(other, "acme", SECRET)) == (one == other)
    assert len({first, user_hash(one, "rival", SECRET), user_hash(one, "acme", USERS)}) == 3
    assert len(first) == 32
    int(first, 16)


@pytest.mark.parametrize(
    "headers",
    [
        {"feature": b""},
        {"feature": b"a b"},
        {"feature": b"x" * 65},
        {"session": b"x" * 129},
        {"session": b"a\x85b"},
        {"tags": b""},
        {"tags": b"a,,b"},
        {"tags": b"a=b=c"},
        {"tags": b"a" * 33},
        {"tags": b",".join(b"t%d" % n for n in range(MAX_TAGS + 1))},
    ],
)
def test_a_header_that_is_not_as_documented_is_refused_by_its_name(headers):
    (name,) = headers
    vocabulary = Vocabulary()
    with pytest.raises(BadRequest, match=f"x-penstock-{name}") as refused:
        said(headers, vocabulary=vocabulary)
    assert refused.value.param == f"x-penstock-{name}"


def test_words_beyond_the_cap_are_counted_as_other_and_take_nothing_from_another_organisation():
    vocabulary = Vocabulary(most=3)
    assert said({"feature": b"a", "tags": b"env=dev,env=prod"}, vocabulary=vocabulary).tags == ("env=dev", "env=prod")
    late = said({"feature": b"b", "tags": b"env=prod,new,newer"}, vocabulary=vocabulary)
    assert (late.feature, late.tags) == (OTHER, ("env=prod", OTHER))
    assert vocabulary.n_others == 3
    assert said({"feature": b"b"}, org="rival", vocabulary=vocabulary).feature == "b"


@given(st.lists(st.text(alphabet="abc", min_size=1, max_size=3), max_size=30), st.integers(0, 5))
def test_a_vocabulary_never_has_more_words_than_it_may(words, most):
    vocabulary = Vocabulary(most)
    taken = {word for word in words if vocabulary.takes("acme", word)}
    assert taken == set(list(dict.fromkeys(words))[:most])
