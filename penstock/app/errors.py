"""What a person did wrong, or what is missing, when a server is started: told without a traceback, exit code 2."""

from __future__ import annotations


class StartError(Exception):
    """`message` says what is wrong and what to do; it may have several lines."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
