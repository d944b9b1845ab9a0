"""GET /: a page on its own."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from support.api.http import client
from support.fakes.engine import make_app

pytestmark = pytest.mark.asyncio


async def get():
    async with client(make_app(api_key=["sesame"])) as http:
        return await http.get("/")


async def test_nothing_comes_from_elsewhere():
    response = await get()
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    addresses = set(re.findall(r"https?://[^\s'\"]+", response.text))
    assert addresses <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"\bsrc=|@import|url\(|<link (?!rel=\"icon\" href=\"data:)", response.text)


async def test_the_policy_lets_its_own_script_run_and_no_other():
    response = await get()
    policy = dict(
        part.strip().split(" ", 1) for part in response.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", response.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert policy[directive] == f"'sha256-{digest}'"
    assert not re.search(r"\son\w+=|style=|javascript:", response.text)
    assert "innerHTML" not in response.text  # the model's text is text


async def test_it_can_be_used_without_a_mouse_or_eyes():
    text = (await get()).text
    assert '<html lang="en">' in text
    ids = set(re.findall(r'<(?:input|textarea|select) [^>]*\bid="(\w+)"', text))
    labelled = set(re.findall(r'<label[^>]* for="(\w+)"', text))
    inside = set(re.findall(r'<label>[^<]*<(?:input|textarea)[^>]*\bid="(\w+)"', text))
    assert ids == labelled | inside
    assert 'role="status"' in text
    assert 'aria-live="polite"' in text
    assert "prefers-color-scheme: dark" in text
