"""The language of rules: a small, closed part of CEL (the Common Expression Language), typed and compiled once.

    org == "acme" && prompt_tokens + max_tokens > 8000 && !("internal" in tags)

Every name is a fact of the request whose type is known, so whatever could go wrong does so here, when the
configuration is read: what was compiled always answers true or false. There is nothing that loops, no attribute of
anything, and nothing that can be called but four methods of texts and `size`, so it takes no longer than it is written.
Unlike in CEL a header that is not there is "". See docs/routing.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from enum import StrEnum
from operator import attrgetter
from typing import Any, Final, NamedTuple

import msgspec

from penstock.core.request import Endpoint, Priority
from penstock.routing.facts import SECRET_HEADERS, Facts

MAX_LENGTH: Final = 2_000  # characters
MAX_DEPTH: Final = 32  # parentheses and `!` inside one another
MAX_OPERATORS: Final = 100  # each is one call deeper when the condition is asked


class Kind(StrEnum):
    """The types of values; the value is what people are told."""

    TEXT = "a text"
    NUMBER = "a number"
    FLAG = "true or false"
    TEXTS = "a list of texts"
    NUMBERS = "a list of numbers"
    HEADERS = "the headers"


_OF_ANNOTATION: Final[dict[object, Kind]] = {
    str: Kind.TEXT,
    int: Kind.NUMBER,
    float: Kind.NUMBER,
    bool: Kind.FLAG,
    tuple[str, ...]: Kind.TEXTS,
    Mapping[str, str]: Kind.HEADERS,
}
FACTS: Final = {
    field.name: _OF_ANNOTATION[field.type]
    for field in msgspec.structs.fields(Facts)
    if field.type in _OF_ANNOTATION and not field.name.startswith("_")
}
"""What a rule may ask about, by name."""
VALUES: Final[dict[str, frozenset[str]]] = {
    "priority": frozenset(Priority),
    "endpoint": frozenset(Endpoint),
}
"""All that some facts can be: comparing them with anything else is a mistake."""

Test = Callable[[Facts], bool]
_Run = Callable[[Facts], Any]


class ExpressionError(ValueError):
    """What is wrong and where. `column` counts characters from 1."""

    def __init__(self, message: str, column: int) -> None:
        super().__init__(f"at character {column}: {message}")
        self.column = column


class Expression:
    """A condition, ready to be asked. `needs` are the facts in it, `headers` the names of headers, in lower case."""

    __slots__ = ("headers", "holds", "needs", "source")

    def __init__(self, source: str) -> None:
        """Raises `ExpressionError`."""
        parser = _Parser(source)
        self.source = source
        self.holds: Test = parser.whole()
        self.needs = frozenset(parser.needs)
        self.headers = frozenset(parser.headers)


class _Token(NamedTuple):
    sort: str  # name, number, text, mark, end
    text: str
    column: int


class _Term(NamedTuple):
    kind: Kind
    run: _Run
    token: _Token  # where it begins
    constant: Any = None  # where it is one; the value


_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<number>[0-9]{1,15}(?:\.[0-9]{1,15})?)(?![0-9A-Za-z_.])
    |(?P<text>"(?:[^"\\\x00-\x1f]|\\["'\\nt])*"|'(?:[^'\\\x00-\x1f]|\\["'\\nt])*')
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<mark>&&|\|\||==|!=|<=|>=|[!<>()\[\],.+*-])
    |(?P<end>\Z))""",
    re.VERBOSE,
)
_ESCAPES: Final = {"n": "\n", "t": "\t"}
_INSTEAD: Final = {
    "and": "&&", "or": "||", "not": "!", "=": "==", "&": "&&", "|": "||", "True": "true", "False": "false", "is": "==",
}  # fmt: skip
_METHODS: Final[dict[str, Callable[[str, str], bool]]] = {
    "startsWith": str.startswith,
    "endsWith": str.endswith,
    "contains": str.__contains__,
}
_ORDER: Final = ("<", "<=", ">", ">=")
_RELATIONS: Final = frozenset({"==", "!=", *_ORDER})
_OPERATORS: Final = frozenset({"&&", "||", "+", "-", "*"})


def _tokens(source: str) -> list[_Token]:
    found, at = [], 0
    while True:
        match = _TOKEN.match(source, at)
        if match is None:
            at += len(source[at:]) - len(source[at:].lstrip())
            raise ExpressionError(_unreadable(source[at]), at + 1)
        sort = match.lastgroup or "end"
        found.append(_Token(sort, match[sort], match.start(sort) + 1))
        if sort == "end":
            return found
        at = match.end()


def _unreadable(mark: str) -> str:
    if mark in _INSTEAD:
        return f"`{mark}` means nothing here; write `{_INSTEAD[mark]}`"
    if mark in "\"'":
        return "a text begins here that does not end, or has an escape other than \\\\ \\\" \\' \\n \\t"
    if mark in "/%?":
        return f"`{mark}` is not part of this language"
    if mark.isdigit():
        return "a number is written 12 or 0.5, with at most 15 digits"
    return f"{mark!a} means nothing here"


class _Parser:
    """Recursive descent, one method for each level of CEL's grammar; types are checked on the way."""

    def __init__(self, source: str) -> None:
        if len(source) > MAX_LENGTH:
            raise ExpressionError(f"a condition has at most {MAX_LENGTH:,} characters", MAX_LENGTH)
        self.needs: set[str] = set()
        self.headers: set[str] = set()
        self._tokens = _tokens(source)
        operators = [token for token in self._tokens if token.sort == "mark" and token.text in _OPERATORS]
        if len(operators) > MAX_OPERATORS:
            raise ExpressionError(
                f"a condition has at most {MAX_OPERATORS} operators; write several rules, or a list with `in`",
                operators[MAX_OPERATORS].column,
            )
        self._at = 0
        self._depth = 0

    def whole(self) -> Test:
        term = self._or()
        token = self._next()
        if token.sort != "end":
            raise ExpressionError(_unexpected(token, "the end, or `&&` or `||` and another condition"), token.column)
        self._must_be(term, Kind.FLAG)
        return term.run  # of this kind, so it is a `Test`

    # --- levels, from the loosest to the tightest ---

    def _or(self) -> _Term:
        term = self._and()
        while self._takes("||"):
            left, right = self._must_be(term, Kind.FLAG), self._must_be(self._and(), Kind.FLAG)
            term = _Term(Kind.FLAG, _either(left.run, right.run), left.token)
        return term

    def _and(self) -> _Term:
        term = self._relation()
        while self._takes("&&"):
            left, right = self._must_be(term, Kind.FLAG), self._must_be(self._relation(), Kind.FLAG)
            term = _Term(Kind.FLAG, _both(left.run, right.run), left.token)
        return term

    def _relation(self) -> _Term:
        left = self._sum()
        token = self._peek()
        if token.sort == "mark" and token.text in _RELATIONS:
            self._at += 1
            right = self._sum()
            return self._compared(left, token, right)
        if token.sort == "name" and token.text == "in":
            self._at += 1
            return self._contained(left, token, self._sum())
        return left

    def _sum(self) -> _Term:
        term = self._product()
        while (token := self._peek()).text in ("+", "-") and token.sort == "mark":
            self._at += 1
            left, right = self._must_be(term, Kind.NUMBER), self._must_be(self._product(), Kind.NUMBER)
            term = _Term(Kind.NUMBER, (_added if token.text == "+" else _less)(left.run, right.run), left.token)
        return term

    def _product(self) -> _Term:
        term = self._unary()
        while self._takes("*"):
            left, right = self._must_be(term, Kind.NUMBER), self._must_be(self._unary(), Kind.NUMBER)
            term = _Term(Kind.NUMBER, _times(left.run, right.run), left.token)
        return term

    def _unary(self) -> _Term:
        token = self._peek()
        if token.sort != "mark" or token.text not in ("!", "-"):
            return self._member()
        self._at += 1
        self._deeper(token)
        if token.text == "!":
            run = self._must_be(self._unary(), Kind.FLAG).run
            term = _Term(Kind.FLAG, lambda facts: not run(facts), token)
        else:
            number = self._must_be(self._unary(), Kind.NUMBER)
            negated = number.run
            constant = None if number.constant is None else -number.constant
            term = _Term(Kind.NUMBER, lambda facts: -negated(facts), token, constant)
        self._depth -= 1
        return term

    def _member(self) -> _Term:
        term = self._primary()
        while True:
            if self._takes("."):
                term = self._method(term)
            elif self._takes("["):
                term = self._header(term)
            else:
                return term

    def _primary(self) -> _Term:
        token = self._next()
        match token.sort:
            case "number":
                value = float(token.text) if "." in token.text else int(token.text)
                return _Term(Kind.NUMBER, lambda facts: value, token, value)
            case "text":
                text = re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), token.text[1:-1])
                return _Term(Kind.TEXT, lambda facts: text, token, text)
            case "name":
                return self._named(token)
        if token.text == "(":
            self._deeper(token)
            term = self._or()
            self._expect(")")
            self._depth -= 1
            return term
        if token.text == "[":
            return self._list(token)
        raise ExpressionError(_unexpected(token, "a fact, a value or `(`"), token.column)

    # --- what is named, called and looked up ---

    def _named(self, token: _Token) -> _Term:
        name = token.text
        if name in ("true", "false"):
            return _Term(Kind.FLAG, lambda facts: name == "true", token, name == "true")
        if name == "size" and self._takes("("):
            inner = self._or()
            self._expect(")")
            if inner.kind not in (Kind.TEXT, Kind.TEXTS):
                raise ExpressionError(f"`size` is of a text or a list, not of {inner.kind}", inner.token.column)
            run = inner.run
            return _Term(Kind.NUMBER, lambda facts: len(run(facts)), token)
        kind = FACTS.get(name)
        if kind is None:
            if name in _INSTEAD:
                raise ExpressionError(f"`{name}` is written `{_INSTEAD[name]}` here", token.column)
            raise ExpressionError(f"`{name[:40]}` is not a fact.{_nearest(name, FACTS)}", token.column)
        self.needs.add(name)
        return _Term(kind, attrgetter(name), token)

    def _method(self, term: _Term) -> _Term:
        token = self._next()
        method = _METHODS.get(token.text)
        if token.sort != "name" or method is None:
            raise ExpressionError(
                f"`.{token.text[:40]}` is nothing that can be asked.{_nearest(token.text, _METHODS)}", token.column
            )
        self._must_be(term, Kind.TEXT)
        self._expect("(")
        argument = self._must_be(self._or(), Kind.TEXT)
        self._expect(")")
        return _Term(Kind.FLAG, _called(method, term.run, argument), term.token)

    def _header(self, term: _Term) -> _Term:
        token = self._next()
        if term.kind is not Kind.HEADERS:
            raise ExpressionError(f"`[...]` is for `headers`, and this is {term.kind}", token.column)
        if token.sort != "text":
            raise ExpressionError('the name of a header is a text, such as headers["x-tier"]', token.column)
        name = token.text[1:-1].lower()
        if re.fullmatch(r"[a-z0-9!#$%&'*+.^_`|~-]{1,64}", name) is None:
            raise ExpressionError(f"`{name[:40]}` is no name of a header", token.column)
        if name in SECRET_HEADERS:
            raise ExpressionError(f"`{name}` carries secrets, which rules do not see; ask for `key`", token.column)
        self._expect("]")
        self.headers.add(name)
        return _Term(Kind.TEXT, lambda facts: facts.headers.get(name, ""), term.token)

    def _list(self, opening: _Token) -> _Term:
        items: list[_Term] = []
        while not self._takes("]"):
            if items:
                self._expect(",")
            items.append(self._unary())
        for item in items:
            if item.constant is None or item.kind not in (Kind.TEXT, Kind.NUMBER) or item.kind is not items[0].kind:
                raise ExpressionError("a list is of texts or of numbers, all alike", item.token.column)
        if not items:
            raise ExpressionError("nothing is in an empty list", opening.column)
        values = tuple(item.constant for item in items)
        kind = Kind.TEXTS if items[0].kind is Kind.TEXT else Kind.NUMBERS
        return _Term(kind, lambda facts: values, opening, values)

    # --- comparing ---

    def _compared(self, left: _Term, token: _Token, right: _Term) -> _Term:
        comparable = (Kind.NUMBER, Kind.TEXT) if token.text in _ORDER else (Kind.NUMBER, Kind.TEXT, Kind.FLAG)
        if left.kind is not right.kind:
            raise ExpressionError(f"{left.kind} `{token.text}` {right.kind}: never comparable", token.column)
        if left.kind not in comparable:
            hint = " Use `in`." if left.kind is Kind.TEXTS else ""
            raise ExpressionError(f"`{token.text}` does not compare {left.kind}.{hint}", token.column)
        self._possible(left, (right.constant,))
        self._possible(right, (left.constant,))
        return _Term(Kind.FLAG, _comparison(token.text, left.run, right), left.token)

    def _contained(self, left: _Term, token: _Token, right: _Term) -> _Term:
        if right.kind is Kind.HEADERS and left.constant is not None and left.kind is Kind.TEXT:
            raise ExpressionError(f'write headers["{left.constant}"] != ""', token.column)
        wanted = {Kind.TEXTS: Kind.TEXT, Kind.NUMBERS: Kind.NUMBER}.get(right.kind)
        if wanted is None:
            raise ExpressionError(f"`in` is followed by a list, not by {right.kind}", right.token.column)
        self._must_be(left, wanted)
        if right.constant is not None:
            self._possible(left, right.constant)
        return _Term(Kind.FLAG, _within(left.run, right), left.token)

    def _possible(self, fact: _Term, values: Iterable[object]) -> None:
        known = VALUES.get(fact.token.text) if fact.token.sort == "name" else None
        for value in values:
            if known is not None and isinstance(value, str) and value not in known:
                raise ExpressionError(
                    f"`{fact.token.text}` is never `{value[:40]}`.{_nearest(value, known)}", fact.token.column
                )

    # --- the row of tokens ---

    def _peek(self) -> _Token:
        return self._tokens[self._at]

    def _next(self) -> _Token:
        token = self._tokens[self._at]
        self._at = min(self._at + 1, len(self._tokens) - 1)
        return token

    def _takes(self, mark: str) -> bool:
        token = self._peek()
        if token.sort != "mark" or token.text != mark:
            return False
        self._at += 1
        return True

    def _expect(self, mark: str) -> None:
        token = self._peek()
        if not self._takes(mark):
            raise ExpressionError(_unexpected(token, f"`{mark}`"), token.column)

    def _deeper(self, token: _Token) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ExpressionError(f"nested deeper than {MAX_DEPTH}", token.column)

    def _must_be(self, term: _Term, kind: Kind) -> _Term:
        if term.kind is not kind:
            named = f"`{term.token.text[:40]}` is {term.kind}" if term.token.sort != "mark" else f"this is {term.kind}"
            raise ExpressionError(f"{named}, where {kind} is needed", term.token.column)
        return term


def _unexpected(token: _Token, wanted: str) -> str:
    if token.text in _INSTEAD:
        return f"`{token.text}` is written `{_INSTEAD[token.text]}` here"
    return f"{wanted} is missing here" if token.sort == "end" else f"expected {wanted}, not `{token.text[:40]}`"


def _nearest(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = get_close_matches(name[:100], names, n=1)
    return f" Did you mean `{near[0]}`?" if near else f" There are: {', '.join(names)}."


# --- what is left when a request comes: closures, of which the usual shapes have one call less ---


def _either(left: _Run, right: _Run) -> _Run:
    return lambda facts: left(facts) or right(facts)


def _both(left: _Run, right: _Run) -> _Run:
    return lambda facts: left(facts) and right(facts)


def _added(left: _Run, right: _Run) -> _Run:
    return lambda facts: left(facts) + right(facts)


def _less(left: _Run, right: _Run) -> _Run:
    return lambda facts: left(facts) - right(facts)


def _times(left: _Run, right: _Run) -> _Run:
    return lambda facts: float(left(facts)) * float(right(facts))  # what is too large is infinite, and no error


def _called(method: Callable[[str, str], bool], run: _Run, argument: _Term) -> _Run:
    if argument.constant is not None:
        text = argument.constant
        return lambda facts: method(run(facts), text)
    other = argument.run
    return lambda facts: method(run(facts), other(facts))


def _comparison(mark: str, left: _Run, right: _Term) -> _Run:
    if right.constant is not None:
        value = right.constant
        match mark:
            case "==":
                return lambda facts: left(facts) == value
            case "!=":
                return lambda facts: left(facts) != value
            case "<":
                return lambda facts: left(facts) < value
            case "<=":
                return lambda facts: left(facts) <= value
            case ">":
                return lambda facts: left(facts) > value
        return lambda facts: left(facts) >= value
    other = right.run
    match mark:
        case "==":
            return lambda facts: left(facts) == other(facts)
        case "!=":
            return lambda facts: left(facts) != other(facts)
        case "<":
            return lambda facts: left(facts) < other(facts)
        case "<=":
            return lambda facts: left(facts) <= other(facts)
        case ">":
            return lambda facts: left(facts) > other(facts)
    return lambda facts: left(facts) >= other(facts)


def _within(left: _Run, right: _Term) -> _Run:
    if right.constant is not None:
        values = frozenset(right.constant)
        return lambda facts: left(facts) in values
    other = right.run
    return lambda facts: left(facts) in other(facts)
