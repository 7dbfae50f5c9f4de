"""Who may be let in without a key, and what is said when an address cannot be had."""

from __future__ import annotations

import socket

import pytest

from penstock.app.errors import StartError
from penstock.app.listen import bind, bind_beside, development_mode, loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_only_this_machine_reaches_a_loopback_address(host: str):
    assert loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.4", "example.com", "", "localhost.example.com"])
def test_any_other_address_is_not_loopback(host: str):
    assert not loopback(host)


@pytest.mark.parametrize("insecure_dev", [False, True])
@pytest.mark.parametrize("without_file", [False, True])
def test_without_keys_no_other_machine_is_ever_served(insecure_dev: bool, without_file: bool):
    with pytest.raises(StartError, match=r"anybody could use your models\..*penstock key create.*--host 127\.0\.0\.1"):
        development_mode("0.0.0.0", n_keys=0, insecure_dev=insecure_dev, asked_without_file=without_file)


def test_a_file_without_keys_wants_the_word_said_even_on_loopback():
    with pytest.raises(StartError, match="--insecure-dev"):
        development_mode("127.0.0.1", n_keys=0, insecure_dev=False, asked_without_file=False)
    assert development_mode("127.0.0.1", n_keys=0, insecure_dev=True, asked_without_file=False)


def test_a_start_without_a_file_is_development_on_loopback():
    assert development_mode("localhost", n_keys=0, insecure_dev=False, asked_without_file=True)


def test_with_keys_everybody_is_asked_for_one():
    assert not development_mode("0.0.0.0", n_keys=3, insecure_dev=False, asked_without_file=False)
    with pytest.raises(StartError, match="Leave out one of the two"):
        development_mode("127.0.0.1", n_keys=3, insecure_dev=True, asked_without_file=False)


@pytest.mark.parametrize("shared", [False, True])
def test_a_taken_port_is_told_at_once_with_what_to_do(shared: bool):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match=rf"Port {port} on 127.0.0.1 is taken.*--port"):
            bind("127.0.0.1", port, shared=shared)


@pytest.mark.parametrize("shared", [False, True])
def test_a_port_taken_by_another_penstock_is_taken(shared: bool):
    first = bind("127.0.0.1", 0)
    with first[0], pytest.raises(StartError, match="is taken"):
        bind("127.0.0.1", first[0].getsockname()[1], shared=shared)


@pytest.mark.parametrize("shared", [False, True])
def test_localhost_is_every_address_that_it_has_and_one_port(shared: bool):
    sockets = bind("localhost", 0, shared=shared)
    assert {loopback(one.getsockname()[0]) for one in sockets} == {True}
    assert len({one.getsockname()[1] for one in sockets}) == 1
    for one in sockets:
        one.close()


def test_an_unknown_host_is_told_in_words():
    with pytest.raises(StartError, match=r"There is no host 'no-such-host\.invalid'"):
        bind("no-such-host.invalid", 0)


def test_workers_can_be_bound_beside_the_socket_that_holds_the_port():
    held = bind("127.0.0.1", 0, shared=True)
    port = held[0].getsockname()[1]
    workers = [bind_beside([(int(held[0].family), "127.0.0.1")], port)[0] for _ in range(2)]
    for one in workers:
        one.listen()
    with socket.create_connection(("127.0.0.1", port)):
        pass
    for one in [*held, *workers]:
        one.close()
