"""The console's own files: what is served of them, to whom, and how much of it there is."""

from __future__ import annotations

import gzip
import hashlib
import re
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.console.pages import API, POLICY, STATIC, TYPES, Pages
from penstock.testing.exchange import FakeExchange

STATIC_FILES = Path(str(files("penstock.console"))) / "static"
PAGES = Pages()
MOST_BYTES = 200_000  # gzipped, for everything


def ask(path: str | bytes, method: bytes = b"GET", **headers: str) -> FakeExchange:
    lines = tuple((name.replace("_", "-").encode(), value.encode()) for name, value in headers.items())
    path = path if isinstance(path, bytes) else path.encode()
    exchange = FakeExchange(b"", method=method, path=path, headers=lines)
    PAGES.answer(exchange)  # type: ignore[arg-type]  # a fake
    return exchange


def header(exchange: FakeExchange, name: bytes) -> bytes:
    return dict(line.split(b": ", 1) for line in exchange.headers.split(b"\r\n") if line)[name]


def ours() -> list[Path]:
    return [path for path in STATIC_FILES.rglob("*") if path.suffix[1:] in TYPES and path.parent.name != "vendor"]


@pytest.mark.parametrize("path", ["/console", "/console/", "/console/requests/req_1", "/console/..%2f..%2fetc/passwd"])
def test_every_view_has_the_same_page(path: str):
    assert PAGES.answers(path.encode())
    answer = ask(path)
    assert answer.status == 200
    assert answer.text == (STATIC_FILES / "index.html").read_bytes()


def test_the_api_and_other_paths_are_not_the_pages():
    assert not any(PAGES.answers(path) for path in (b"/console/api/me", API, b"/consoles", b"/admin/v1/me", b"/"))


@given(st.binary(max_size=60))
def test_nothing_but_the_files_themselves_is_served_whatever_the_path(rest: bytes):
    answer = ask(STATIC + rest)
    known = {str(path.relative_to(STATIC_FILES)).encode() for path in STATIC_FILES.rglob("*")}
    assert answer.status == 404 or rest in known


@pytest.mark.parametrize(
    "path", ["../pages.py", "%2e%2e/pages.py", "vendor/../main.js", "vendor", "", "vendor/README.md", "./main.js"]
)
def test_no_path_leads_out_of_the_folder_or_to_what_is_beside_the_files(path: str):
    assert ask(f"/console/static/{path}").status == 404


def test_an_answer_carries_the_policy_and_is_asked_about_again_each_time():
    answer = ask("/console/static/main.js")
    assert header(answer, b"content-security-policy") == POLICY
    assert b"unsafe" not in POLICY
    assert header(answer, b"x-content-type-options") == b"nosniff"
    assert header(answer, b"cache-control") == b"no-cache"
    assert answer.content_type == b"text/javascript; charset=utf-8"
    again = ask("/console/static/main.js", if_none_match=header(answer, b"etag").decode())
    assert (again.status, again.text) == (304, b"")
    assert ask("/console/static/main.js", if_none_match='W/"another"').status == 200


def test_who_understands_gzip_gets_the_same_in_fewer_bytes():
    plain, packed = ask("/console/static/main.js"), ask("/console/static/main.js", accept_encoding="gzip, br")
    assert header(packed, b"content-encoding") == b"gzip"
    assert gzip.decompress(packed.text) == plain.text
    assert len(packed.text) < len(plain.text)


def test_pages_are_only_looked_at():
    assert ask("/console", b"POST").status == 405


def test_the_whole_console_is_small():
    assert PAGES.size < MOST_BYTES


def test_every_file_that_a_file_names_is_there_and_every_file_is_named():
    named = {STATIC_FILES / "index.html"}
    for path in ours():
        text = path.read_text(encoding="utf-8")
        named |= {(path.parent / one).resolve() for one in re.findall(r'from "(\.[^"]+)"', text)}
        named |= {STATIC_FILES / one for one in re.findall(r'"/console/static/([^"]+)"', text)}
    assert named == {path for path in STATIC_FILES.rglob("*") if path.suffix[1:] in TYPES}


def test_a_browser_is_told_of_all_modules_at_once_and_asks_for_none_after_the_other():
    page = (STATIC_FILES / "index.html").read_text(encoding="utf-8")
    told = set(re.findall(r'<(?:link rel="modulepreload" href|script src)="/console/static/([^"]+)"', page))
    assert told == {str(path.relative_to(STATIC_FILES)) for path in STATIC_FILES.rglob("*.js")}


def test_nothing_is_inline_and_nothing_comes_from_elsewhere():
    page = (STATIC_FILES / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<style|<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=|https?://", page)
    for path in ours():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|innerHTML|dangerouslySetInnerHTML|\beval\(|new Function", text), path


def test_what_others_wrote_is_what_they_published_and_says_under_which_licence():
    vendor = STATIC_FILES / "vendor"
    lines = (vendor / "digests.sha256").read_text(encoding="utf-8").splitlines()
    digests = {name: digest for digest, name in (line.split() for line in lines)}
    found = {path.name: path for path in vendor.iterdir() if path.suffix[1:] in TYPES}
    assert {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in found.items()} == digests
    notes = (vendor / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in notes for name in found)
    licences = re.findall(r"`(\w+-LICENSE)`", notes)
    assert len(set(licences)) == 3 and all((vendor / name).exists() for name in licences)
