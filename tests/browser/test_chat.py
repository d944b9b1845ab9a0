"""The chat on the page: an answer, its stop, its versions, what is sent and what is shown."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import pytest
from playwright.async_api import expect

from support.browser import prompt_of, scripted
from support.fakes.engine import FakeEngine
from support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

MARKDOWN = """# Title

A **bold** word and `code`.

| a | b |
|---|---|
| 1 | 2 |

```python
def f(x):
    return "x"
```

Mass: $E = mc^2$, and

$$\\int_0^1 x\\,dx = \\frac{1}{2}$$

Also \\(a^2\\), and

\\[b^2\\]

It costs $5 or $6.
"""
THINKS = "<think>\nThe user greets me.\n</think>\n\nHello to you."
CALLS = '<tool_call>\n{"name": "now", "arguments": {"zone": "CET"}}\n</tool_call>'
TOOLS = [{"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}]


async def test_a_question_gets_an_answer_in_markdown(site):
    page = (s := await site(scripted({"show": MARKDOWN}))).page
    await expect(page.locator("#input")).to_be_focused()
    await page.keyboard.type("show")
    await page.keyboard.press("Enter")
    await s.answered()
    answer = s.answer()
    await expect(answer.locator("h1")).to_have_text("Title")
    await expect(answer.locator("strong")).to_have_text("bold")
    await expect(answer.locator("td")).to_have_text(["1", "2"])
    await expect(answer.locator("pre code")).to_have_text('def f(x):\n    return "x"')
    await expect(answer.locator("pre .hljs-keyword").first).to_have_text("def")
    await expect(answer.locator(".math-inline .katex")).to_have_count(2)
    await expect(answer.locator(".math-block .katex")).to_have_count(2)
    await expect(answer.locator(".math-block .mfrac")).to_have_count(1)
    await expect(answer).to_contain_text("It costs $5 or $6.")
    await expect(page.locator(".message.assistant .figures")).to_contain_text("tokens/s")
    await expect(page.locator("#input")).to_be_focused()


async def test_copy_button_puts_code_or_message_on_the_clipboard(site):
    s = await site(
        scripted({"show": MARKDOWN}), context={"permissions": ["clipboard-read", "clipboard-write"]}
    )
    await s.ask("show")
    await s.answer().locator(".code-copy").click()
    assert await s.page.evaluate("navigator.clipboard.readText()") == 'def f(x):\n    return "x"'
    await s.page.locator(".message.assistant [aria-label=Copy]").click()
    assert await s.page.evaluate("navigator.clipboard.readText()") == MARKDOWN


@pytest.mark.parametrize("how", ["Escape", "button"])
async def test_stop_ends_the_answer_and_keeps_the_received_text(site, how):
    engine = scripted({}, otherwise="word " * 2000, delay_s=0.02)
    s = await site(engine)
    await s.send("Talk.")
    await expect(s.answer()).to_contain_text("word word word")
    if how == "Escape":
        await s.page.keyboard.press("Escape")
    else:
        await s.page.click("#stop")
    await s.answered()
    await expect(s.page.locator(".message.assistant .figures")).to_contain_text("stopped")
    await expect(s.page.locator("#send")).to_be_visible()
    await until(lambda: engine.left == [engine.seen[0].id])
    text = await s.answer().inner_text()
    await s.page.reload()
    await expect(s.answer()).to_have_text(text)


async def test_regenerate_keeps_both_answers_after_a_reload(site):
    texts = iter(["The first.", "The second.", "The third."])
    s = await site(FakeEngine(lambda request: scripted({}, next(texts)).reply(request), n_ctx=8192))
    await s.ask("Tell me.")
    await s.page.click(".regenerate")
    await expect(s.answer()).to_have_text("The second.")
    await expect(s.page.locator(".message")).to_have_count(2)
    await expect(s.page.locator(".branches")).to_contain_text("2 of 2")
    await s.page.click("[aria-label='Previous version']")
    await expect(s.answer()).to_have_text("The first.")
    await s.page.reload()
    await expect(s.answer()).to_have_text("The first.")
    await s.page.click("[aria-label='Next version']")
    await expect(s.answer()).to_have_text("The second.")


async def test_changes_while_the_page_closes_are_saved(site):
    texts = iter(["The first.", "The second."])
    s = await site(FakeEngine(lambda request: scripted({}, next(texts)).reply(request), n_ctx=8192))
    await s.ask("Tell me.")
    await s.page.click(".regenerate")
    await expect(s.answer()).to_have_text("The second.")
    await expect(s.page.locator(".branches")).to_contain_text("2 of 2")
    previous = "document.querySelector('[aria-label=\"Previous version\"]')"
    await s.page.evaluate(f"addEventListener('pagehide', () => {previous}.click())")
    await s.page.reload()
    await expect(s.answer()).to_have_text("The first.")


async def test_edited_question_starts_another_branch(site):
    engine = scripted({"cats": "Cats purr.", "dogs": "Dogs bark."})
    s = await site(engine)
    await s.ask("About cats")
    await s.ask("And then?")
    await s.page.locator(".message.user").first.hover()
    await s.page.locator(".message.user .edit").first.click()
    await s.page.fill(".edit-form textarea", "About dogs")
    await s.page.press(".edit-form textarea", "Enter")
    await expect(s.answer()).to_have_text("Dogs bark.")
    await expect(s.page.locator(".message")).to_have_count(2)
    assert "cats" not in prompt_of(engine.seen[-1])
    await s.page.locator(".message.user").hover()
    await s.page.click("[aria-label='Previous version']")
    await expect(s.page.locator(".message")).to_have_count(4)
    await expect(s.page.locator(".message.assistant .body").first).to_have_text("Cats purr.")


async def test_only_what_the_user_changed_is_sent(site):
    engine = scripted({})
    s = await site(engine, default=["temperature=0.3", "top_k=7"])
    page = s.page
    await expect(page.locator("#set-temperature")).to_have_attribute("placeholder", "0.3")
    await expect(page.locator("#set-top_k")).to_have_attribute("placeholder", "7")
    await s.ask("One")
    assert (engine.seen[-1].params.temperature, engine.seen[-1].params.top_k) == (0.3, 7)
    await page.fill("#set-temperature", "0.9")
    await page.fill("#set-system", "Speak like a pirate.")
    await s.ask("Two")
    assert (engine.seen[-1].params.temperature, engine.seen[-1].params.top_k) == (0.9, 7)
    assert "Speak like a pirate." in prompt_of(engine.seen[-1])
    await page.click("[aria-label='Reset Temperature to the default']")
    await s.ask("Three")
    assert engine.seen[-1].params.temperature == 0.3
    await page.fill("#set-temperature", "99")
    await expect(page.locator("#set-temperature")).to_have_attribute("aria-invalid", "true")
    await s.ask("Four")
    assert engine.seen[-1].params.temperature == 0.3


async def test_preset_stores_system_prompt_and_sampling(site):
    engine = scripted({})
    s = await site(engine)
    await s.page.fill("#set-system", "Be brief.")
    await s.page.fill("#set-top_k", "3")
    await s.page.fill("#preset-name", "Mine")
    await s.page.press("#preset-name", "Enter")
    await s.page.fill("#set-system", "")
    await s.page.fill("#set-top_k", "")
    await s.page.reload()
    await s.page.select_option("#preset", label="Mine")
    await expect(s.page.locator("#set-system")).to_have_value("Be brief.")
    await s.ask("Hi")
    assert engine.seen[-1].params.top_k == 3
    assert "Be brief." in prompt_of(engine.seen[-1])


async def test_reasoning_is_folded(site):
    s = await site(scripted({}, THINKS))
    await s.ask("Hi")
    await expect(s.answer().locator("> .markdown")).to_have_text("Hello to you.")
    thoughts = s.answer().locator(".reasoning > .markdown")
    await expect(thoughts).not_to_be_visible()
    await s.answer().locator("summary").click()
    await expect(thoughts).to_have_text("The user greets me.")


async def test_reasoning_unfolded_while_streaming_stays_unfolded(site):
    s = await site(scripted({}, "<think>\n" + "so " * 100 + "\n</think>\n\nDone.", delay_s=0.02))
    await s.send("Hi")
    await s.answer().locator("summary").click()
    thoughts = s.answer().locator(".reasoning > .markdown")
    await expect(thoughts).to_contain_text("so so so")
    await s.answered()
    await expect(s.answer().locator("> .markdown")).to_have_text("Done.")
    await expect(thoughts).to_be_visible()
    await expect(s.answer().locator("summary")).to_contain_text("Thought for")


async def test_tool_call_is_shown_and_its_result_is_sent(site):
    replies = {"noon": "It is noon.", "time": CALLS}
    engine = scripted(replies)
    s = await site(engine)
    await s.page.get_by_text("Output and tools").click()
    await s.page.fill("#set-tools", json.dumps(TOOLS))
    await s.send("What time is it?")
    await expect(s.page.locator(".call-name")).to_have_text("now")
    await expect(s.page.locator(".call pre")).to_have_text('{\n  "zone": "CET"\n}')
    await s.page.fill(".call textarea", "It is noon")
    await s.page.click(".calls > button")
    await expect(s.answer()).to_have_text("It is noon.")
    await expect(s.page.locator(".message.tool .bubble")).to_have_text("It is noon")
    assert "<tool_response>\nIt is noon\n</tool_response>" in prompt_of(engine.seen[-1])


async def test_schema_constrains_the_answer(site):
    engine = scripted({}, '{"a": 1}')
    s = await site(engine)
    await s.page.get_by_text("Output and tools").click()
    await s.page.fill("#set-schema", "{")
    await expect(s.page.locator("#wrong-schema")).to_contain_text("Not JSON")
    await s.page.fill("#set-schema", '{"type": "object", "properties": {"a": {"type": "integer"}}}')
    await expect(s.page.locator("#wrong-schema")).to_have_text("")
    await s.ask("JSON, please")
    assert engine.seen[-1].constraint is not None
    await expect(s.answer().locator("pre code")).to_have_text('{"a": 1}')


async def test_attached_text_is_sent_and_a_binary_file_is_refused(site):
    engine = scripted({})
    s = await site(engine)
    for name, content in (("notes.txt", b"Buy ```milk```."), ("image.bin", b"\x89PNG\x00\xff")):
        async with s.page.expect_file_chooser() as chooser:
            await s.page.click("#attach")
        await (await chooser.value).set_files({"name": name, "mimeType": "", "buffer": content})
    await expect(s.page.locator(".toast")).to_contain_text("image.bin is not a UTF-8 text file")
    await expect(s.page.locator(".chip")).to_have_text(["notes.txt"])
    await s.ask("What should I buy?")
    assert "notes.txt:\n````\nBuy ```milk```.\n````\n\nWhat should I buy?" in prompt_of(engine.seen[-1])
    await expect(s.page.locator(".file summary")).to_have_text("notes.txt")


async def test_deleted_messages_are_removed_unless_undone(site):
    s = await site(scripted({"One": "First.", "Two": "Second."}))
    await s.ask("One")
    await s.ask("Two")
    delete = s.page.locator(".message.user [aria-label^=Delete]")
    await s.page.locator(".message.user").last.hover()
    await delete.last.click()
    await expect(s.page.locator(".message")).to_have_count(2)
    await s.page.click(".toast button")
    await expect(s.page.locator(".message")).to_have_count(4)
    await s.page.locator(".message.user").last.hover()
    await delete.last.click()
    await s.page.reload()
    await expect(s.answer()).to_have_text("First.")
    await s.page.locator(".message.user").hover()
    await delete.click()  # all there is: the conversation goes
    await expect(s.page.locator(".conversations .title")).to_have_count(0)
    await s.page.reload()
    await expect(s.page.locator("#state")).to_have_class("state ok")
    await expect(s.page.locator(".message")).to_have_count(0)


async def test_answers_of_several_models_name_their_model(site):
    engines = {name: scripted({}, f"I am {name}.", name=name) for name in ("alpha", "beta")}
    s = await site(engines)
    await s.ask("Who?")
    await expect(s.answer()).to_have_text("I am alpha.")
    await s.page.select_option("#model", "beta")
    await s.page.click(".regenerate")
    await expect(s.answer()).to_have_text("I am beta.")
    await expect(s.page.locator(".message.assistant .figures")).to_contain_text("beta")


async def test_an_error_is_shown_and_can_be_tried_again(site):
    engine = scripted({}, "Fine now.", fail_after=1)
    s = await site(engine)
    await s.send("Go")
    note = s.page.locator(".note.error")
    await expect(note).to_be_visible()
    assert "secret" not in await note.inner_text()
    engine.fail_after = None
    await note.locator("button").click()
    await expect(s.answer()).to_have_text("Fine now.")


async def test_conversation_copied_as_python_or_curl_gets_the_same_answer(site):
    engine = scripted({}, "A copied answer.")
    s = await site(
        engine,
        api_key=["sesame"],
        ready=False,
        context={"permissions": ["clipboard-read", "clipboard-write"]},
    )
    await s.open()
    await s.page.fill("#key-ask", "sesame")
    await s.page.press("#key-ask", "Enter")
    await expect(s.page.locator("#key-bar")).to_be_hidden()  # then the input has the focus
    await s.page.fill("#set-min_p", "0.2")
    await s.ask('It\'s "quoted" & <odd>')
    await s.page.get_by_text("Use in a program").click()
    for label, command in (("Copy as Python", [sys.executable, "-c"]), ("Copy as curl", ["bash", "-c"])):
        await s.page.get_by_text(label).click()
        code = await s.page.evaluate("navigator.clipboard.readText()")
        assert "sesame" not in code
        n = len(engine.seen)
        run = await asyncio.to_thread(
            subprocess.run,
            [*command, code],
            env={"GGSERVE_API_KEY": "sesame", "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "A copied answer." in run.stdout, run.stderr
        assert len(engine.seen) == n + 1
        assert prompt_of(engine.seen[-1]).count('It\'s "quoted" & <odd>') == 1
        assert engine.seen[-1].params.min_p == 0.2
