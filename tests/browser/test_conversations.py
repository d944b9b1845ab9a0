"""Conversations are kept in the browser: reload, several, rename, delete, export, import."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.async_api import expect

from support.browser import Site, prompt_of, scripted

pytestmark = pytest.mark.asyncio(loop_scope="module")

TITLES = ".conversations .title"


async def test_conversations_survive_a_reload(site):
    s = await site(scripted({"one": "First answer.", "two": "Second answer."}))
    await s.ask("Question one")
    await s.page.click("#new")
    await expect(s.page.locator(".message")).to_have_count(0)
    await s.ask("Question two")
    await s.page.reload()
    await expect(s.page.locator(TITLES)).to_have_text(["Question two", "Question one"])
    await expect(s.answer()).to_have_text("Second answer.")
    await s.page.click(f"{TITLES} >> text=Question one")
    await expect(s.answer()).to_have_text("First answer.")


async def test_tab_brought_to_the_front_shows_changes_of_another_tab(site):
    engine = scripted({"one": "First answer.", "again": "Later."})
    s = await site(engine)
    await s.ask("Question one")
    page = await s.page.context.new_page()
    other = Site(s.url, page)
    await other.open()
    await other.ask("And again")
    assert await s.page.locator(".message").count() == 2
    await s.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    await expect(s.page.locator(".message")).to_have_count(4)
    await s.ask("A third time")
    assert "And again" in prompt_of(engine.seen[-1])
    assert other.errors == []


async def test_two_conversations_are_answered_at_the_same_time(site):
    engine = scripted({"one": "slow " * 60, "two": "Quick."}, delay_s=0.02)
    s = await site(engine)
    await s.send("Question one")
    await expect(s.answer()).to_contain_text("slow")
    await s.page.click("#new")
    await s.ask("Question two")
    await expect(s.answer()).to_have_text("Quick.")
    await s.page.click(f"{TITLES} >> text=Question one")
    await s.answered()
    assert (await s.answer().inner_text()).split() == ["slow"] * 60


async def test_conversation_can_be_renamed_deleted_and_restored(site):
    s = await site(scripted({}))
    await s.ask("Some question")
    await s.page.click(".current [aria-label=Rename]")
    await s.page.keyboard.type("Better name")
    await s.page.keyboard.press("Enter")
    await expect(s.page.locator(TITLES)).to_have_text(["Better name"])
    await s.page.click(".current [aria-label=Delete]")
    await expect(s.page.locator(TITLES)).to_have_count(0)
    await expect(s.page.locator(".message")).to_have_count(0)
    await s.page.click(".toast button")
    await expect(s.page.locator(TITLES)).to_have_text(["Better name"])
    await s.page.click(".current [aria-label=Delete]")
    await expect(s.page.locator(TITLES)).to_have_count(0)
    await s.page.reload()
    await expect(s.page.locator(".conversations")).to_contain_text("Conversations appear here.")


async def test_an_export_can_be_imported_elsewhere(site, tmp_path: Path):
    engine = scripted({"one": "First answer.", "again": "Later."})
    s = await site(engine)
    await s.ask("Question one")
    await s.ask("And again")
    async with s.page.expect_download() as saved:
        await s.page.click("#export")
    file = tmp_path / "export.json"
    await (await saved.value).save_as(file)
    other = await site(scripted({}))
    async with other.page.expect_file_chooser() as chooser:
        await other.page.click("#import")
    await (await chooser.value).set_files(file)
    await expect(other.page.locator(TITLES)).to_have_text(["Question one"])
    await expect(other.page.locator(".message.assistant .body")).to_have_text(["First answer.", "Later."])


@pytest.mark.parametrize(
    "change",
    [
        lambda file: "{",
        lambda file: json.dumps({**file, "format": "other"}),
        lambda file: json.dumps(
            {**file, "conversations": [{"title": "x", "messages": [{"role": "system"}]}]}
        ),
        lambda file: json.dumps(
            {
                **file,
                "conversations": [
                    {
                        "title": "a circle",
                        "messages": [
                            {"id": "a", "parent": "b", "role": "user", "content": ""},
                            {"id": "b", "parent": "a", "role": "user", "content": ""},
                        ],
                    }
                ],
            }
        ),
    ],
    ids=["no JSON", "another format", "a message that is none", "a circle"],
)
async def test_a_file_that_is_not_an_export_is_refused(site, change):
    s = await site(scripted({}))
    text = change({"format": "ggserve-conversations", "version": 1, "conversations": []})
    async with s.page.expect_file_chooser() as chooser:
        await s.page.click("#import")
    file = {"name": "x.json", "mimeType": "application/json", "buffer": text.encode()}
    await (await chooser.value).set_files(file)
    await expect(s.page.locator(".toast")).to_have_text("x.json is not an exported conversation file")
    await expect(s.page.locator(TITLES)).to_have_count(0)


async def test_import_applies_only_settings_that_the_page_has(site):
    engine = scripted({}, otherwise="Yes.")
    s = await site(engine)
    message = {"id": "a", "parent": None, "role": "user", "content": "Imported"}
    params = {"temperature": 0.25, "n": 3, "stream": 0, "top_p": "high"}
    conversation = {"title": "x", "messages": [message], "leaf": None, "settings": {"params": params}}
    document = {"format": "ggserve-conversations", "version": 1, "conversations": [conversation]}
    async with s.page.expect_file_chooser() as chooser:
        await s.page.click("#import")
    file = {"name": "x.json", "mimeType": "application/json", "buffer": json.dumps(document).encode()}
    await (await chooser.value).set_files(file)
    async with s.page.expect_request("**/v1/chat/completions") as sent:
        await s.ask("Question")
    body = json.loads((await sent.value).post_data)
    assert body["temperature"] == 0.25
    assert body["stream"] is True
    assert not {"n", "top_p"} & body.keys()
