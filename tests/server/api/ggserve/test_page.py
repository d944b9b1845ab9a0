"""GET /, /docs and their files: complete, from nowhere else, with a policy. tests/browser uses them."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from support.api.http import client, error_of
from support.fakes.engine import make_app

PAGE = Path(__file__).parents[4] / "server" / "page"
VENDOR = PAGE / "vendor"
OWN = [path for path in sorted(PAGE.rglob("*")) if path.is_file() and VENDOR not in path.parents]
SCRIPTS = [path for path in OWN if path.suffix == ".js"]
TEXTS = sorted((PAGE / "texts").glob("*.json"))
TYPES = {
    "/": "text/html; charset=utf-8",
    "/docs": "text/html; charset=utf-8",
    "/page/scripts/main.js": "text/javascript; charset=utf-8",
    "/page/styles/base.css": "text/css; charset=utf-8",
    "/page/texts/de.json": "application/json",
    "/page/vendor/dompurify/purify.es.mjs": "text/javascript; charset=utf-8",
    "/page/vendor/katex/fonts/KaTeX_Main-Regular.woff2": "font/woff2",
    "/page/vendor/katex/LICENSE": "text/plain; charset=utf-8",
}
own = pytest.mark.parametrize("path", OWN, ids=lambda path: path.relative_to(PAGE).as_posix())
script = pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)


def keyed():
    return client(make_app(api_key=["sesame"]))


@pytest.mark.asyncio
async def test_every_file_is_served_without_a_key():
    async with keyed() as http:
        for path in PAGE.rglob("*"):
            if path.is_file():
                response = await http.get(f"/page/{path.relative_to(PAGE).as_posix()}")
                assert response.status_code == 200, path
                assert response.content == path.read_bytes(), path


@pytest.mark.asyncio
@pytest.mark.parametrize(("path", "media_type"), TYPES.items())
async def test_file_has_its_content_type_and_is_sent_once(path, media_type):
    async with keyed() as http:
        first = await http.get(path)
        head = await http.head(path)
        tag = first.headers["etag"]
        again = [await http.get(path, headers={"if-none-match": value}) for value in (tag, f'"x", W/{tag}')]
        other = await http.get(path, headers={"if-none-match": '"x"'})
    assert first.headers["content-type"] == media_type
    assert first.headers["x-content-type-options"] == "nosniff"
    assert first.headers["cache-control"] == "no-cache"
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", tag)
    assert [(response.status_code, response.content) for response in again] == [(304, b"")] * 2
    assert other.content == first.content


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "path",
    ["x", "", "scripts", "../auth.py", "..%2f..%2fapp.py", "%2e%2e/app.py", "scripts//main.js", "a\0b"],
)
async def test_a_file_that_is_not_part_of_the_page_is_not_found(path):
    async with client(make_app()) as http:
        error_of(await http.get(f"/page/{path.replace(chr(0), '%00')}"), 404)


@pytest.mark.asyncio
async def test_only_files_below_the_folder_are_public():
    async with keyed() as http:
        for path in ("/page", "/pages/x", "/v1/models", "/openapi.json", "/page/../v1/models"):
            assert (await http.get(path)).status_code == 401, path


@pytest.mark.asyncio
@pytest.mark.parametrize("path", ["/", "/docs", "/page/scripts/main.js"])
async def test_content_policy_allows_only_files_of_this_server(path):
    async with client(make_app()) as http:
        header = (await http.get(path)).headers["content-security-policy"]
    policy = dict(part.strip().split(" ", 1) for part in header.split(";"))
    assert policy.pop("default-src") == "'none'"
    assert policy.pop("img-src") == "data:"
    assert policy.pop("frame-ancestors") == policy.pop("base-uri") == policy.pop("form-action") == "'none'"
    if path == "/":
        assert policy.pop("require-trusted-types-for") == "'script'"
        assert policy.pop("trusted-types") == "dompurify"
    names = ("script-src", "style-src", "font-src", "connect-src")
    assert policy == dict.fromkeys(names, "'self'")


@pytest.mark.asyncio
async def test_redoc_redirects_to_the_docs():
    async with keyed() as http:
        response = await http.get("/redoc")
    assert (response.status_code, response.headers["location"]) == (308, "docs")


@own
def test_file_is_short_and_loads_nothing_from_elsewhere(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") < 400
    assert set(re.findall(r"https?://[^\s'\"`\\)]+", text)) <= {"http://www.w3.org/2000/svg"}
    assert path.suffix != ".css" or not re.search(r"@import|url\(", text)


@pytest.mark.parametrize("name", ["index.html", "docs.html"])
def test_page_has_no_inline_script_or_style(name):
    text = (PAGE / name).read_text(encoding="utf-8")
    assert re.findall(r"<script(?![^>]* src=)|<style|\son\w+=|style=|javascript:", text) == []
    for address in re.findall(r'(?:src|href)="([^"#:]+)"', text):
        assert address == "./" or (PAGE / address.removeprefix("page/")).is_file(), address


@script
def test_script_writes_no_html(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text
    )


@script
def test_script_imports_only_existing_names(path):
    for name in re.findall(r'(?:from |import\(|import )"(\.[^"]+)"', path.read_text(encoding="utf-8")):
        assert (path.parent / name).is_file(), name


def used_keys() -> tuple[set[str], set[str]]:
    """Keys that the page names, and the beginnings of those that it builds."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in OWN if path.suffix in (".js", ".html"))
    names = set(re.findall(r'\bt\("([\w.]+)"|data-t(?:-label)?="([\w.]+)"|key: "([\w.]+)"', text))
    whole = {name for groups in names for name in groups if name} - {"key"}
    whole |= set(re.findall(r'"((?:vectors|presets|monitor)\.\w+)"', text))
    return whole, set(re.findall(r"`([a-z]+\.[a-z_]*)\$\{", text))


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_language_has_exactly_the_texts_the_page_uses(path):
    texts = json.loads(path.read_text(encoding="utf-8"))
    assert all(isinstance(text, str) and text for text in texts.values())
    keys = {re.sub(r"\.(one|other)$", "", key) for key in texts}
    whole, beginnings = used_keys()
    assert whole - keys == set()
    assert {key for key in keys - whole if not key.startswith(tuple(beginnings))} == set()


def test_languages_have_the_same_texts_and_placeholders():
    languages = [json.loads(path.read_text(encoding="utf-8")) for path in TEXTS]
    assert [path.stem for path in TEXTS] == ["de", "en"]
    places = [{key: set(re.findall(r"\{\w+\}", text)) for key, text in texts.items()} for texts in languages]
    assert places[0] == places[1]


def test_libraries_are_unmodified_releases_with_their_licences():
    lines = (VENDOR / "SHA256SUMS").read_text(encoding="ascii").splitlines()
    sums = {name.removeprefix("./"): digest for digest, name in (line.split("  ") for line in lines)}
    content = {
        path.relative_to(VENDOR).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in VENDOR.rglob("*")
        if path.is_file() and path.name not in ("README.md", "SHA256SUMS")
    }
    assert sums == content
    readme = (VENDOR / "README.md").read_text(encoding="utf-8")
    for folder in (path for path in VENDOR.iterdir() if path.is_dir()):
        assert (folder / "LICENSE").is_file(), folder
        assert f"| `{folder.name}` |" in readme
