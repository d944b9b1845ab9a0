"""The web page at /, the API documentation at /docs, and their files. Nothing is loaded from other hosts."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from server.errors import ApiError
from server.http.route import Route

router = APIRouter(route_class=Route, include_in_schema=False)

_TYPES = {  # not those of the machine: on some, the registry says that .js is plain text
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "mjs": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "json": "application/json",
    "woff2": "font/woff2",
}
_PLAIN = "text/plain; charset=utf-8"  # licences

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# The texts of a model become nodes only through the sanitizer. Swagger's interface writes HTML itself.
_TRUSTED = "; require-trusted-types-for 'script'; trusted-types dompurify"


@cache
def _files() -> dict[str, tuple[bytes, str]]:
    """The content and media type of each file below server/page, by path."""

    def walk(folder: Traversable, prefix: str) -> dict[str, tuple[bytes, str]]:
        contents: dict[str, tuple[bytes, str]] = {}
        for entry in folder.iterdir():
            path = prefix + entry.name
            if entry.is_dir():
                contents |= walk(entry, path + "/")
            else:
                contents[path] = entry.read_bytes(), _TYPES.get(path.rpartition(".")[2], _PLAIN)
        return contents

    return walk(files("server") / "page", "")


@cache
def _etag(path: str) -> str:
    return f'"{hashlib.sha256(_files()[path][0]).hexdigest()[:32]}"'


def _answer(path: str, request: Request, policy: str) -> Response:
    """The file, or 304 if the client has it. Browsers revalidate each time, so versions never mix."""
    headers = {
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",
        "etag": _etag(path),
    }
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if headers["etag"] in known or "*" in known:
        return Response(status_code=304, headers=headers)
    content, media_type = _files()[path]
    return Response(content, media_type=media_type, headers=headers)


@router.api_route("/", methods=["GET", "HEAD"], response_class=Response)
async def index(request: Request) -> Response:
    return _answer("index.html", request, _POLICY + _TRUSTED)


@router.api_route("/docs", methods=["GET", "HEAD"], response_class=Response)
async def docs(request: Request) -> Response:
    return _answer("docs.html", request, _POLICY)


@router.get("/openapi.json", response_class=Response)
def openapi(request: Request) -> Response:
    """The description of all routes. It is built on the first call, which takes a second, in a thread."""
    return JSONResponse(request.app.openapi())


@router.api_route("/redoc", methods=["GET", "HEAD"], response_class=Response)
async def redoc() -> Response:
    return RedirectResponse("docs", 308)


@router.api_route("/page/{path:path}", methods=["GET", "HEAD"], response_class=Response)
async def file(path: str, request: Request) -> Response:
    if path not in _files():
        raise ApiError(404, f"no file '{path[:128]}'", code="not_found")
    return _answer(path, request, _POLICY)
