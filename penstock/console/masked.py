"""A configuration as people may read it: every digest and secret in it has a name in its place, such as `(digest 1)`.

An edited text may be completed again, for a dry run. What is then told of it is hidden once more: somebody who may look
at a configuration must not get at its secrets by moving their names to where a message quotes them.
"""

from __future__ import annotations

import re
from typing import Final

from penstock.telemetry.redact import MASK, MIN_SECRET_LENGTH, redact

_DIGEST: Final = re.compile(r"\b[0-9a-fA-F]{64}\b")
_NAME: Final = re.compile(r"\((?:digest|secret) [0-9]+\)")
_BEFORE: Final = re.compile(r"[^\s{,\[]*[:=]?[ \t]*['\"]?\Z")
_ENOUGH: Final = 8  # characters of a secret that give it away; messages cut what they quote


class Masked:
    """`text` is what may be read."""

    def __init__(self, text: str) -> None:
        self._hidden: dict[str, tuple[str, str]] = {}  # by name: what stands before it in its line, and itself
        self.text = ""
        for part, secret in _parts(text):
            start = 0
            for found in _DIGEST.finditer(part):
                self.text += part[start : found.start()]
                self._hide("digest", found[0])
                start = found.end()
            self.text += part[start:]
            if secret:
                self._hide("secret", secret)

    def complete(self, text: str) -> str:
        """With what is hidden, wherever its name stands behind the same option as it did."""

        def whole(found: re.Match[str]) -> str:
            before, secret = self._hidden.get(found[0], (None, ""))
            return secret if _before(text[: found.start()]) == before else found[0]

        return _NAME.sub(whole, text)

    def hide(self, line: str) -> str:
        """A line that is told of a completed text, without what had been hidden, whole or cut."""
        for name, (_, secret) in self._hidden.items():
            if len(secret) >= MIN_SECRET_LENGTH:
                line = _without(line, secret, name)
        return _DIGEST.sub("(a digest)", redact(line))

    def _hide(self, what: str, secret: str) -> None:
        name = f"({what} {len(self._hidden) + 1})"
        self._hidden[name] = _before(self.text), secret
        self.text += name


def _before(text: str) -> str:
    found = _BEFORE.search(text[text.rfind("\n") + 1 :])
    return "" if found is None else found[0]


def _without(line: str, secret: str, name: str) -> str:
    kept, at = "", 0
    while (start := line.find(secret[:_ENOUGH], at)) >= 0:
        kept += line[at:start] + name
        at = start
        for given, hidden in zip(line[start:], secret, strict=False):
            if given != hidden:
                break
            at += 1
    return kept + line[at:]


def _parts(text: str) -> list[tuple[str, str]]:
    """What may be read, each with the secret that follows it; "" after the last."""
    shown = redact(text).split(MASK)
    found, at = [], 0
    for n, part in enumerate(shown[:-1], 1):
        at += len(part)
        end = len(text) - len(shown[n]) if n == len(shown) - 1 else text.find(shown[n], at + 1)
        if end <= at:
            return [(redact(text), "")]  # it cannot be told what was masked, so nothing can be put back
        found.append((part, text[at:end]))
        at = end
    return [*found, (shown[-1], "")]
