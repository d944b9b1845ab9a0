"""Chromium, driven by Playwright, on pages of an application around a FakeEngine."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from engine.types import Request
from support.api.chat import app as chat_app
from support.fakes.engine import FakeEngine, ids, make_app, make_folder_app, serving, tokenizer
from support.waiting import PATIENCE_S

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Nothing that looks for Google's servers: tests need no network.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Loaded machines paint late; a timeout is a failure, never a result.
expect.set_options(timeout=PATIENCE_S * 500)
DESKTOP = {"width": 1360, "height": 850}
PHONE = {"width": 390, "height": 844}


def executable() -> str:
    """GGSERVE_CHROMIUM, else the Chromium or Chrome of this machine."""
    path = os.environ.get("GGSERVE_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    assert path, 'no Chromium found: install it, set GGSERVE_CHROMIUM, or deselect with -m "not browser"'
    return path


@asynccontextmanager
async def launched() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable(), args=FLAGS)
        try:
            yield browser
        finally:
            await browser.close()


def prompt_of(request: Request) -> str:
    """What the model was given."""
    return str(tokenizer().decode(request.prompt, skip_special=False))


def scripted(replies: Mapping[str, str], otherwise: str = "Yes.", **options: Any) -> FakeEngine:
    """Answers by a word of the last question; the words are looked for in their order."""

    def reply(request: Request) -> list[int]:
        question = prompt_of(request).rpartition("user")[2]
        return ids(next((text for word, text in replies.items() if word in question), otherwise))

    return FakeEngine(reply, n_ctx=8192, **options)


class Site:
    """One page of one application, and what happened on it that should not."""

    def __init__(self, url: str, page: Page) -> None:
        self.url, self.page = url, page
        self.errors: list[str] = []
        self.strangers: list[str] = []  # addresses elsewhere that were asked for
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._console)
        page.on("request", self._request)

    def _console(self, message: Any) -> None:
        # Refused requests are reported there as well, and tests cause some.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.errors.append(message.text)

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.url, "data:", "blob:")):
            self.strangers.append(request.url)

    async def open(self, path: str = "/") -> None:
        await self.page.goto(self.url + path)
        await expect(self.page.locator("#state")).to_have_class("state ok")

    async def send(self, text: str) -> None:
        await self.page.fill("#input", text)
        await self.page.press("#input", "Enter")

    async def ask(self, text: str) -> None:
        """Send a message and wait for the whole answer."""
        await self.send(text)
        await expect(self.page.locator(".message.user .bubble").last).to_have_text(text)
        await self.answered()

    async def answered(self) -> None:
        last = self.page.locator(".message").last
        await expect(last).to_have_attribute("aria-busy", "false")
        await expect(last).to_have_class("message assistant")

    def answer(self) -> Any:
        """The body of the last answer."""
        return self.page.locator(".message.assistant .body").last


SiteOf = Callable[..., Any]


@asynccontextmanager
async def sites(browser: Browser) -> AsyncIterator[SiteOf]:
    """A function that serves an engine and opens a page on it; afterwards no page may have had an error."""
    opened: list[Site] = []
    async with AsyncExitStack() as stack:

        async def open_site(
            engine: FakeEngine | Mapping[str, FakeEngine],
            *,
            context: Mapping[str, Any] | None = None,
            ready: bool = True,
            on_request: bool = False,
            **settings: Any,
        ) -> Site:
            chats = isinstance(engine, FakeEngine) and engine.info is not None and engine.info["generates"]
            if on_request and not isinstance(engine, FakeEngine):
                app = make_folder_app(*engine.values(), **settings)
            else:
                app = chat_app(engine, **settings) if chats else make_app(engine, **settings)
            url = stack.enter_context(serving(app))
            options = {"viewport": DESKTOP, "locale": "en-US", **(context or {})}
            surroundings: BrowserContext = await browser.new_context(**options)
            stack.push_async_callback(surroundings.close)
            site = Site(url, await surroundings.new_page())
            opened.append(site)
            if ready:
                await site.open()
            return site

        yield open_site
    assert [site.errors for site in opened] == [[] for _ in opened]
    assert [site.strangers for site in opened] == [[] for _ in opened]
