"""The web page in headless Chromium. Deselect these tests with `-m "not browser"`.

Without a Chromium they fail and say so; none is skipped.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from support.browser import SiteOf, launched, sites


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.e2e)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser():
    async with launched() as chromium:
        yield chromium


@pytest_asyncio.fixture(loop_scope="module")
async def site(browser) -> AsyncIterator[SiteOf]:
    async with sites(browser) as open_site:
        yield open_site
