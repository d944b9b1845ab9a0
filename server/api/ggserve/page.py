"""GET /: a page to try the model in. One file, nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Response

router = APIRouter()


@cache
def _page() -> tuple[bytes, str]:
    """The page and its policy: only its own script and style run, and it talks only to this server."""
    page = (files("server") / "page" / "index.html").read_bytes()

    def hashes(tag: bytes) -> str:
        texts = re.findall(b"<%s>(.*?)</%s>" % (tag, tag), page, re.DOTALL)
        return " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'" for text in texts
        )

    policy = (
        f"default-src 'none'; script-src {hashes(b'script')}; style-src {hashes(b'style')}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return page, policy


@router.api_route("/", methods=["GET", "HEAD"], include_in_schema=False, response_class=Response)
async def index() -> Response:
    page, policy = _page()
    headers = {
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",
    }
    return Response(page, media_type="text/html", headers=headers)
