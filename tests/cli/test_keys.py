"""The form of a key, and the verbs that make, list, replace and revoke what the configuration holds of it."""

import hashlib
import hmac
import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.config.load import load
from penstock.config.units import unix_seconds
from penstock.core.clock import SystemClock
from penstock.core.keys import ENTROPY_BYTES, PEPPER_BYTES, Pepper, digest, mint, public_part, well_formed

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


@given(st.binary(min_size=PEPPER_BYTES, max_size=100), st.binary(max_size=100))
def test_a_peppered_digest_is_the_hmac_of_rfc_2104(secret, key):
    pepper = Pepper(secret)
    assert pepper.digest(key) == pepper.digest(key) == hmac.digest(secret, key, "sha256")


def test_a_pepper_that_could_be_guessed_is_refused_and_not_quoted():
    with pytest.raises(ValueError, match="at least 16") as refusal:
        Pepper(b"hunter2")
    assert "hunter2" not in str(refusal.value)


# --- the verbs ---

HEAD = """\
models: { chat: { deployments: [a] }, embed: { deployments: [a] } }
deployments: { a: { engine: http://a:1 } }
keys_pepper: env:PEPPER
organisations: { acme: { models: [chat], teams: { search: { networks: [10.0.0.0/8] } } } }
"""
OLD = "sk-an-older-key"


@pytest.fixture
def file(penstock, monkeypatch):
    monkeypatch.setenv("PEPPER", "a pepper of some length")
    path = Path("penstock.yaml")
    path.write_text(
        HEAD
        + "keys:\n"
        + f"  - {{ id: web, sha256: {digest(OLD)}, org: acme, team: search, expires: 2030-01-01 }}\n"
        + f"  - {{ id: ci, hmac: {'cd' * 32}, scopes: [read] }}\n"
    )
    return path


def printed(out):
    """The one entry that a verb prints for the file."""
    config = load(HEAD + "keys:\n" + out.partition("keys:\n")[2], "printed")
    (key,) = config.keys
    return key


def test_what_is_made_under_a_pepper_is_let_in_under_it(penstock, file):
    ran = penstock(
        "key", "create", "--id", "new", "--org", "acme", "--team", "search", "--scope", "call",
        "--network", "10.1.0.0/16", "--endpoint", "embeddings", "--expires", "2030-01-31", "--priority", "low",
        "--pepper", "env:PEPPER", "--in-file",
    )  # fmt: skip
    secret, key = ran.out.splitlines()[0], printed(ran.out)
    assert key.hmac == Pepper(b"a pepper of some length").digest(secret.encode()).hex()
    assert (key.org, key.team, key.scopes, key.networks) == ("acme", "search", ("call",), ("10.1.0.0/16",))
    assert (key.endpoints, key.expires, key.priority, key.sha256) == (("embeddings",), "2030-01-31", "low", None)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--expires", "soon"], "expires must be a day"),
        (["--endpoint", "embedings"], "Did you mean `embeddings`?"),
        (["--network", "10.0.0.1/8"], "the network is 10.0.0.0/8"),
        (["--team", "search"], "team needs `org`"),
        (["--pepper", "env:NOWHERE"], "the environment variable NOWHERE is not set"),
        (["--pepper", "hunter2"], "not a reference to a secret"),
    ],
)
def test_an_option_that_no_file_could_hold_is_refused_before_a_key_is_shown(penstock, options, told):
    ran = penstock("key", "create", "--in-file", *options)
    assert (ran.code, ran.out) == (2, "")
    assert told in ran.err
    assert "hunter2" not in ran.err


def test_keys_are_listed_by_organisation_and_never_with_their_digests(penstock, file):
    listed = penstock("key", "list").out
    assert listed.splitlines() == ["ci   scopes read", "web  expires 2030-01-01; org acme; team search"]
    assert json.loads(penstock("key", "list", "--org", "acme", "--json").out) == [
        {"id": "web", "org": "acme", "team": "search", "expires": "2030-01-01", "where": "file", "digest": "sha256"}
    ]
    assert penstock("key", "list", "--team", "ads").out == ""
    assert not Path("penstock.db").exists(), "to look makes nothing"


def test_a_key_is_shown_with_what_it_inherits(penstock, file):
    shown = json.loads(penstock("key", "show", "web", "--json").out)
    assert (shown["effective"]["models"], shown["effective"]["networks"], shown["digest"]) == (
        ["chat"],
        ["10.0.0.0/8"],
        "sha256",
    )
    assert "models     chat\n" in penstock("key", "show", "web").out
    assert digest(OLD) not in penstock("key", "show", "web").out
    ran = penstock("key", "show", "wbe")
    assert (ran.code, ran.err) == (2, "there is no key `wbe`. Did you mean `web`?\n")


def test_rotation_keeps_all_that_is_said_of_a_key_and_lets_the_old_one_in_for_a_while(penstock, file):
    before = SystemClock.wall()
    ran = penstock("key", "rotate", "web", "--overlap", "2h")
    secret, key = ran.out.splitlines()[0], printed(ran.out)
    assert well_formed(secret)
    assert key.hmac == Pepper(b"a pepper of some length").digest(secret.encode()).hex()
    assert (key.id, key.org, key.team, key.expires, key.sha256) == ("web", "acme", "search", "2030-01-01", None)
    assert (key.previous.sha256, key.previous.hmac) == (digest(OLD), None)
    assert before + 7199 <= unix_seconds(key.previous.until) <= SystemClock.wall() + 7200
    assert secret not in file.read_text()


def test_to_rotate_again_forgets_the_key_before_the_last(penstock, file):
    once = printed(penstock("key", "rotate", "web").out)
    line = msgspec.json.encode(once, order="deterministic").decode()
    file.write_text(HEAD + f"keys:\n  - {line}\n")
    twice = printed(penstock("key", "rotate", "web").out)
    assert twice.previous.hmac == once.hmac
    assert twice.previous.sha256 is None


@pytest.mark.parametrize("overlap", ["7", "999999999d", "soon"])
def test_an_overlap_that_is_no_duration_is_refused(penstock, file, overlap):
    ran = penstock("key", "rotate", "web", "--overlap", overlap)
    assert (ran.code, ran.out) == (2, "")


def test_revocation_says_since_when_and_keeps_the_rest(penstock, file):
    key = printed(penstock("key", "revoke", "web").out)
    assert (key.id, key.sha256, key.expires) == ("web", digest(OLD), "2030-01-01")
    assert abs(unix_seconds(key.revoked) - SystemClock.wall()) < 60
    assert json.loads(penstock("key", "revoke", "web", "--json").out)["id"] == "web"
