"""Refusals are known by how they begin, and what only looks like one is left alone."""

from __future__ import annotations

import pytest

from penstock.core.refusals import LOOKED_AT, reads_like_a_refusal

REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I cannot assist with that request.",
    "I cannot do this.",
    "As an AI language model, I cannot provide medical advice.",
    "As an AI language model, I cannot",
    "Unfortunately, I am not able to share that.",
    "I can’t help you with that",
    "Sorry, I won't write that.",
    "I must decline to answer.",
    "I'm unable to discuss this topic.",
    "I apologize, but I'm not comfortable creating this content.",
    "I'm sorry, but no.",
    "Es tut mir leid, dabei kann ich nicht helfen.",
)
ANSWERS = (
    "I can help with that!",
    "I can do this. I'm sorry for the delay.",
    "I cannot overstate how important this is.",
    "Sorry to hear that! Let me help.",
    "Sorry is a word.",
    "Sorry, nobody knows.",
    'He said: "I cannot help you."',
    "I won't bore you with details, but here they are:",
    "x" * LOOKED_AT + "I cannot help you.",
    "No.",
    "",
)


@pytest.mark.parametrize("text", REFUSALS)
def test_what_begins_as_refusals_do_reads_like_one(text: str):
    assert reads_like_a_refusal(text)


@pytest.mark.parametrize("text", ANSWERS)
def test_what_is_an_answer_does_not(text: str):
    assert not reads_like_a_refusal(text)
