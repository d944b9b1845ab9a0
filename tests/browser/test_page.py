"""The page around the chat: narrow screens, colours, languages, keyboard, other models, the server."""

from __future__ import annotations

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import expect

from support.browser import DESKTOP, PHONE, scripted
from support.fakes.engine import FakeEngine
from support.waiting import until, until_async

pytestmark = pytest.mark.asyncio(loop_scope="module")

LONG = "A rather long paragraph that fills some lines of a narrow screen. " * 4 + "\n\n" + "x" * 300
WIDE = (
    "| "
    + " | ".join("column" for _ in range(20))
    + " |\n|"
    + "---|" * 20
    + "\n\n```\n"
    + "code " * 60
    + "\n```"
)


async def inside(page, selector: str) -> bool:
    """Whether the element lies wholly within the window."""
    box = await page.locator(selector).bounding_box()
    size = page.viewport_size
    return bool(
        box
        and box["x"] >= 0
        and box["y"] >= 0
        and box["x"] + box["width"] <= size["width"] + 0.5
        and box["y"] + box["height"] <= size["height"] + 0.5
    )


@pytest.mark.parametrize("width", [320, 390, 768])
async def test_header_and_input_on_a_narrow_screen_stay_visible(site, width):
    window = {"viewport": {**PHONE, "width": width}, "has_touch": True, "is_mobile": True}
    s = await site(scripted({"long": LONG, "wide": WIDE}), context=window)
    for question in ("long", "wide", "long"):
        await s.ask(question)
    size = await s.page.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.scrollHeight]"
    )
    assert size == [width, PHONE["height"]]
    for selector in (".top", "#model", "#settings-toggle", "#tabs button:last-child", "#input", "#send"):
        assert await inside(s.page, selector), selector
    assert await s.page.evaluate("document.querySelector('.scroller').scrollWidth") <= width
    await s.page.click("#settings-toggle")
    for selector in ("#settings-close", "#set-temperature"):
        assert await inside(s.page, selector), selector
    await s.page.click("#settings-close")
    await expect(s.page.locator("#settings")).to_be_hidden()
    await s.page.click("#sidebar-toggle")
    assert await inside(s.page, "#new")
    await s.page.click("#new")
    await expect(s.page.locator("#sidebar")).to_be_hidden()
    for view in ("text", "model", "server"):
        await s.page.click(f"#tabs [data-view={view}]")
        assert await s.page.evaluate("document.documentElement.scrollWidth") == width
        assert await s.page.evaluate(f"document.querySelector('#view-{view}').scrollWidth") <= width


async def test_chosen_colours_and_language_are_remembered(site):
    s = await site(scripted({}))
    background = "getComputedStyle(document.body).backgroundColor"
    assert await s.page.evaluate(background) == "rgb(251, 250, 248)"
    await s.page.select_option("#theme", "dark")
    assert await s.page.evaluate(background) == "rgb(22, 23, 22)"
    await s.page.select_option("#language", "de")
    await expect(s.page.locator("#new")).to_have_text("Neue Unterhaltung")
    assert await s.page.evaluate("document.documentElement.lang") == "de"
    assert await s.page.evaluate(background) == "rgb(22, 23, 22)"


async def test_default_language_and_theme_follow_the_browser(site):
    s = await site(scripted({}), context={"locale": "de-AT", "color_scheme": "dark"})
    await expect(s.page.locator("#input")).to_have_attribute("placeholder", "Nachricht schreiben")
    assert await s.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(22, 23, 22)"


CONTROLS = "button, input, select, textarea, summary, [role=img], [role=log]"
UNNAMED = """(controls) => [...document.querySelectorAll(controls)]
    .filter((e) => e.checkVisibility() && !(e.ariaLabel || e.labels?.length || e.textContent.trim()))
    .map((e) => e.outerHTML)"""


async def test_every_control_has_a_name_and_can_be_reached_by_keyboard(site):
    s = await site(scripted({}))
    await s.ask("Hi")
    for view in ("text", "model", "server", "chat"):
        await s.page.click(f"#tabs [data-view={view}]")
        assert await s.page.evaluate(UNNAMED, CONTROLS) == []
    reached = set()
    for _ in range(80):
        await s.page.keyboard.press("Tab")
        reached.add(await s.page.evaluate("document.activeElement.id || document.activeElement.className"))
    assert reached >= {
        "skip",
        "sidebar-toggle",
        "settings-toggle",
        "new",
        "input",
        "set-system",
        "language",
        "attach",
    }
    assert any("regenerate" in name for name in reached)
    await s.page.focus("#input")
    await s.page.keyboard.press("ArrowUp")
    await expect(s.page.locator(".edit-form textarea")).to_have_value("Hi")
    await s.page.keyboard.press("Escape")
    await s.page.keyboard.press("Alt+n")
    await expect(s.page.locator(".message")).to_have_count(0)
    await expect(s.page.locator("#input")).to_be_focused()


READABLE = "# Title\n\nA **word** with `code`, $x^2$ and [a link](https://example.com).\n\n" + WIDE


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("window", [DESKTOP, PHONE], ids=["desktop", "phone"])
async def test_axe_finds_no_accessibility_violations(site, scheme, window):
    context = {"bypass_csp": True, "color_scheme": scheme, "viewport": window}
    s = await site(scripted({}, READABLE), context=context)
    await s.ask("Hi")
    for view in ("chat", "text", "model", "server"):
        await s.page.click(f"#tabs [data-view={view}]")
        results = await Axe().run(s.page)
        assert results.violations_count == 0, results.generate_report()
    await s.page.click("#tabs [data-view=chat]")
    if window is PHONE:
        await s.page.click("#settings-toggle")
        results = await Axe().run(s.page)
        assert results.violations_count == 0, results.generate_report()


async def test_a_finished_answer_is_announced(site):
    s = await site(scripted({}))
    await s.ask("Hi")
    await expect(s.page.locator("#announcer")).to_have_text("The answer is complete")
    await expect(s.page.locator(".scroller")).to_have_attribute("role", "log")


class WithoutTemplate:
    """A tokenizer of a model that only continues text."""

    chat_template = None

    def __init__(self, inner) -> None:
        self._inner = inner

    def __getattr__(self, name: str):
        return getattr(self._inner, name)


async def test_text_tab_completes_text_without_a_template(site):
    engine = FakeEngine(" there was a cat.")
    engine.tokenizer = WithoutTemplate(engine.tokenizer)
    s = await site({"stories": engine})
    await expect(s.page.locator("#tabs")).not_to_contain_text("Chat")
    await s.page.fill("#text", "Once")
    await s.page.press("#text", "Control+Enter")
    await expect(s.page.locator("#text")).to_have_value("Once there was a cat.")
    await expect(s.page.locator("#view-text .figures")).to_contain_text("tokens/s")


async def test_text_tab_hides_chat_settings(site):
    s = await site(FakeEngine())
    system = s.page.get_by_label("System prompt")
    await expect(system).to_be_visible()
    await s.page.click('#tabs [data-view="text"]')
    await expect(s.page.get_by_label("Temperature", exact=True)).to_be_visible()
    await expect(system).to_be_hidden()
    await s.page.click('#tabs [data-view="chat"]')
    await expect(system).to_be_visible()


def not_writing(**info):
    engine = FakeEngine(name="vectors")
    engine.info = {**engine.info, "generates": False, "pooling": "mean", **info}
    return engine


async def test_embedding_model_shows_the_embedding_tab(site):
    s = await site(not_writing())
    await expect(s.page.locator("#tabs button").first).to_have_text("Embeddings")
    await expect(s.page.locator("#view-vectors .quiet").first).to_contain_text("does not write text")
    await s.page.fill("#inputs", "a cat\na cat\na dog")
    await s.page.click("#view-vectors button.primary")
    cells = s.page.locator(".matrix td")
    await expect(s.page.locator(".vectors li")).to_have_count(3)
    assert await cells.nth(2).inner_text() == "1.00"  # the first two texts are the same
    assert await cells.nth(3).inner_text() != "1.00"


async def test_ranking_model_ranks_documents(site):
    s = await site(not_writing(n_scores=1, pooling="rank"))
    await s.page.fill("#query", "Where?")
    await s.page.fill("#inputs", "here\nthere\nnowhere")
    await s.page.click("#view-vectors button.primary")
    await expect(s.page.locator(".ranks li")).to_have_count(3)
    scores = [float(text) for text in await s.page.locator(".ranks .number").all_inner_texts()]
    assert scores == sorted(scores, reverse=True)


async def test_the_model_tab_shows_where_layers_run(site):
    engine = scripted({})
    engine.info = {
        **engine.info,
        "architecture": "llama",
        "n_params": 134515008,
        "size_bytes": 96576768,
        "weight_bytes": 96576768,
        "kv_bytes": 1 << 30,
        "placement": ["CUDA0", "CUDA0", "CPU"],
    }
    s = await site(engine)
    await s.page.click("#tabs [data-view=model]")
    view = s.page.locator("#view-model")
    await expect(view.locator(".strip span")).to_have_count(3)
    await expect(view.locator(".legend").first).to_contain_text("CUDA0 · 2 parts")
    await expect(view).to_contain_text("llama")
    await expect(view).to_contain_text("134.5M")
    await expect(view).to_contain_text("1.1 GiB in total")


async def test_server_tab_updates_and_cancels_requests(site):
    engine = scripted({}, "word " * 5000, delay_s=0.01)
    s = await site(engine)
    await s.send("Go on")
    await expect(s.answer()).to_contain_text("word")
    await s.page.click("#tabs [data-view=server]")
    plot = s.page.locator(".plot", has_text="Tokens per second")
    line = plot.locator(".line").first

    async def points() -> int:
        return ((await line.get_attribute("d")) or "").count("L")

    await until_async(lambda: _at_least(points, 1))
    await expect(plot.locator(".now b").first).not_to_have_text("0.0")
    await expect(s.page.locator(".requests tbody tr")).to_have_count(1)
    await expect(s.page.locator(".requests tbody")).to_contain_text("decode")
    before = await points()
    await until_async(lambda: _at_least(points, before + 1))
    await s.page.click(".requests button")
    await expect(s.page.locator(".requests")).to_contain_text("No request is running.")
    await until(lambda: not engine.requests())


async def _at_least(count, n: int) -> bool:
    return await count() >= n


async def test_a_server_without_metrics_says_so(site):
    s = await site(scripted({}), no_metrics=True)
    await s.page.click("#tabs [data-view=server]")
    await expect(s.page.locator("#view-server .wrong")).to_contain_text("--no-metrics")


async def test_unreachable_server_is_reported_and_the_question_is_kept(site):
    s = await site(scripted({}))
    await s.page.route("**/v1/chat/completions", lambda route: route.abort())
    await s.send("Hello?")
    await expect(s.page.locator(".note.error")).to_contain_text("cannot be reached")
    await expect(s.page.locator(".message.user .bubble")).to_have_text("Hello?")


async def test_models_loaded_on_request_have_a_load_button(site):
    s = await site({name: FakeEngine(name=name) for name in ("a", "b")}, on_request=True)
    options = s.page.locator("#model option")
    await expect(options).to_have_text(["a · not loaded", "b · not loaded"])
    await s.page.click("#tabs [data-view=model]")
    button = s.page.locator("#model-action")
    await expect(button).to_have_text("Load")
    await button.click()
    await expect(options).to_have_text(["a", "b · not loaded"])
    await expect(button).to_have_text("Unload")
    await button.click()
    await expect(options).to_have_text(["a · not loaded", "b · not loaded"])
    await s.page.select_option("#model", "b")
    await expect(button).to_have_text("Load")
    assert (await Axe().run(s.page)).violations_count == 0
