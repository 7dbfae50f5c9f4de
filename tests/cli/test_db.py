"""`penstock db`: what it says, what it leaves, and its exit codes. The migrations themselves are in tests/stores."""

import json
from pathlib import Path

import pytest

from penstock.stores.migrate import migrations
from penstock.stores.sql import Dialect

NAMES = [(one.number, one.name) for one in migrations(Dialect.SQLITE)]


def test_an_empty_file_gets_every_migration_and_the_second_time_none(penstock):
    ran = penstock("db", "migrate", "--database", "books.db")
    assert (ran.code, ran.err) == (0, "")
    *applied, last = ran.out.splitlines()
    assert applied == [f"Applied {number:04d} {name}." for number, name in NAMES]
    assert last == f"The schema is version {len(NAMES)}, which is the newest."
    assert penstock("db", "migrate", "--database", "sqlite:///books.db").out == f"{last}\n"


def test_status_says_what_is_applied_and_exits_with_zero(penstock):
    penstock("db", "migrate", "--database", "books.db")
    ran = penstock("db", "status", "--database", "books.db")
    assert ran.code == 0
    assert [line.partition(", applied 20")[0] for line in ran.out.splitlines()] == [
        f"{number:04d} {name}" for number, name in NAMES
    ]


def test_status_of_an_empty_database_says_what_is_pending_changes_nothing_and_exits_with_one(penstock):
    Path("books.db").touch()
    for _ in range(2):
        ran = penstock("db", "status", "--database", "books.db", "--json")
        assert ran.code == 1
        said = json.loads(ran.out)
        assert (said["version"], said["applied"]) == (0, [])
        assert [(one["number"], one["name"]) for one in said["pending"]] == NAMES
    assert (
        "0001 books, pending: `penstock db migrate` applies it"
        in penstock("db", "status", "--database", "books.db").out
    )


def test_the_variable_names_the_database_too(penstock, monkeypatch):
    monkeypatch.setenv("PENSTOCK_DATABASE", "from-variable.db")
    assert penstock("db", "migrate").code == 0
    assert Path("from-variable.db").exists()


@pytest.mark.parametrize(
    ("database", "code", "words"),
    [
        ("missing.db", 2, "there is no missing.db. `penstock db migrate` makes it."),
        ("mysql://localhost/x", 2, "a database is postgres://user@host/name"),
        ("postgres://ann:hunter2@127.0.0.1:1/x", 1, "the database: ConnectionRefusedError"),
    ],
)
def test_what_cannot_be_asked_is_told_plainly(penstock, database, code, words):
    ran = penstock("db", "status", "--database", database)
    assert ran.code == code
    assert words in ran.err
    assert "Traceback" not in ran.err and "hunter2" not in ran.err
    assert list(Path().iterdir()) == []
