"""The kept inputs of the fuzzer, replayed: among them everything that ever broke something."""

from __future__ import annotations

import pytest

from tests.fuzz.fuzz import CORPUS
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_no_kept_input_breaks_a_promise(name):
    inputs = sorted((CORPUS / name).iterdir())
    assert inputs, "a target without a corpus starts from nothing"
    for path in inputs:
        try:
            TARGETS[name](path.read_bytes())
        except Exception as error:
            error.add_note(f"the input is {path}")
            raise


def test_every_corpus_has_its_target():
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
