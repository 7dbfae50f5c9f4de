"""What happened to every simulated request: columns of numbers, because there may be millions."""

from __future__ import annotations

from array import array

OK = ""


class Log:
    """One row for each request that is over; rows are in the order of their ends. Times in seconds, amounts in tokens.

    `first` is NaN where no token came. `words` are what `tenant`, `model`, `priority`, `failed`, `deployment` number.
    """

    __slots__ = (
        "_places", "arrived", "attempts", "cached", "deployment", "ended", "failed", "first", "hedges", "model",
        "number", "output", "priority", "prompt", "tenant", "words",
    )  # fmt: skip

    def __init__(self) -> None:
        self.number: array[int] = array("q")
        self.arrived: array[float] = array("d")
        self.first: array[float] = array("d")
        self.ended: array[float] = array("d")
        self.prompt: array[int] = array("q")
        self.output: array[int] = array("q")  # of those asked for, what came
        self.cached: array[int] = array("q")  # of the prompt, as the engine that answered found it
        self.attempts: array[int] = array("i")
        self.hedges: array[int] = array("i")
        self.tenant: array[int] = array("i")
        self.model: array[int] = array("i")
        self.priority: array[int] = array("i")
        self.deployment: array[int] = array("i")  # that answered
        self.failed: array[int] = array("i")  # why; the word "" where it did not
        self.words: list[str] = [OK]
        self._places: dict[str, int] = {OK: 0}

    def __len__(self) -> int:
        return len(self.number)

    def place(self, word: str) -> int:
        """The number that stands for it."""
        found = self._places.get(word)
        if found is None:
            found = self._places[word] = len(self.words)
            self.words.append(word)
        return found

    def add(
        self,
        number: int,
        arrived: float,
        first: float,
        ended: float,
        prompt: int,
        output: int,
        cached: int,
        attempts: int,
        hedges: int,
        tenant: str,
        model: str,
        priority: str,
        deployment: str,
        failed: str,
    ) -> None:
        self.number.append(number)
        self.arrived.append(arrived)
        self.first.append(first)
        self.ended.append(ended)
        self.prompt.append(prompt)
        self.output.append(output)
        self.cached.append(cached)
        self.attempts.append(attempts)
        self.hedges.append(hedges)
        self.tenant.append(self.place(tenant))
        self.model.append(self.place(model))
        self.priority.append(self.place(priority))
        self.deployment.append(self.place(deployment))
        self.failed.append(self.place(failed))
