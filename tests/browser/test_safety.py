"""What a model writes is only shown; a key stays in its tab."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from support.browser import scripted

pytestmark = pytest.mark.asyncio(loop_scope="module")

ATTACK = """<script>window.ran = 1</script>
<img src=x onerror="window.ran = 2">
<svg onload="window.ran = 3"></svg>
<iframe srcdoc="<script>parent.ran = 4</script>"></iframe>

[click](javascript:window.ran=5) <a href="javascript:window.ran=6">me</a>

![pixel](http://127.0.0.1:9/pixel.png?secret) and ![own](v1/models)

| <style>body { display: none }</style> |
|---|
| <form action="http://127.0.0.1:9/"><input autofocus onfocus="window.ran = 7"></form> |

$\\href{javascript:window.ran=8}{x}$ $\\htmlStyle{position: fixed}{y}$

```html
</code></pre><img src=x onerror="window.ran = 9"><script>window.ran = 10</script>
```

<div id="input" onclick="window.ran = 11">big</div>
"""


async def test_a_script_in_an_answer_never_runs(site):
    s = await site(scripted({"attack": ATTACK}))
    await s.ask("attack")
    answer = s.answer()
    await expect(answer).to_contain_text("<script>window.ran = 1</script>")
    await expect(answer.locator("pre")).to_contain_text("window.ran = 10")
    await expect(
        answer.locator("img, script, iframe, style, form, input, svg:not(.icon, .katex svg)")
    ).to_have_count(0)
    await expect(answer.locator("[href^=javascript], [onclick], [onerror], [onload], #input")).to_have_count(
        0
    )
    for link in await answer.locator("a").all():
        assert (await link.get_attribute("rel")) == "noopener noreferrer nofollow"
    await answer.get_by_text("click", exact=True).click()
    await s.page.reload()
    await expect(s.answer()).to_contain_text("<script>window.ran = 1</script>")
    assert await s.page.evaluate("window.ran") is None
    # Nothing was fetched for it: `site` checks foreign addresses, this one would be ours.
    assert await s.page.evaluate("performance.getEntriesByName(location.origin + '/v1/models').length") == 0


async def test_injected_script_is_blocked_by_the_content_security_policy(site):
    s = await site(scripted({}))
    refused = await s.page.evaluate(
        """() => {
            try {
                const script = document.createElement("script");
                script.textContent = "window.ran = 1";
                document.body.append(script);
            } catch { /* by Trusted Types */ }
            try {
                document.body.insertAdjacentHTML("beforeend", "<b>x</b>");
            } catch (error) {
                return error.name;
            }
        }"""
    )
    assert refused == "TypeError"
    assert await s.page.evaluate("window.ran") is None
    assert s.errors
    s.errors.clear()


async def test_hostile_markdown_does_not_hang_the_page(site):
    texts = [
        ">" * 3000,
        "[" * 3000,
        "*a" * 3000,
        "- " * 1500 + "x",
        "$" * 3001,
        "`" * 3001,
        "|" * 2000 + "\n" + "|-" * 1000,
    ]
    s = await site(scripted({f"case{i}.": text for i, text in enumerate(texts)}, step=500))
    for i in range(len(texts)):
        await s.ask(f"case{i}.")
    assert await s.page.locator(".message.assistant").count() == len(texts)


async def test_a_server_with_a_key_asks_for_it_once(site):
    engine = scripted({}, "Hello.")
    s = await site(engine, api_key=["sesame"])
    page = s.page
    await expect(page.locator("#key-ask")).to_be_focused()
    await page.keyboard.type("wrong")
    await page.keyboard.press("Enter")
    await expect(page.locator("#key-wrong")).to_have_text("This key is not valid.")
    await page.fill("#key-ask", "sesame")
    await page.press("#key-ask", "Enter")
    await expect(page.locator("#key-bar")).to_be_hidden()
    await expect(page.locator("#set-temperature")).to_have_attribute("placeholder", "0.8")
    await s.ask("Hi")
    await expect(s.answer()).to_have_text("Hello.")
    await page.reload()
    await expect(page.locator("#set-temperature")).to_have_attribute("placeholder", "0.8")
    await expect(page.locator("#key-bar")).to_be_hidden()
    assert "sesame" not in await page.evaluate("JSON.stringify(localStorage)")


async def test_docs_work_offline_and_use_the_key(site):
    s = await site(scripted({}), api_key=["sesame"], ready=False)
    page = s.page
    await page.goto(s.url + "/docs")
    await expect(page.locator("#note")).to_contain_text("requires an API key")
    await page.keyboard.type("sesame")
    await page.keyboard.press("Enter")
    operation = page.locator(".opblock-summary-path", has_text="/v1/models").first
    await operation.click()
    await page.get_by_text("Try it out").click()
    await page.get_by_text("Execute").click()
    await expect(page.locator(".live-responses-table tbody .response-col_status").first).to_contain_text(
        "200"
    )
    await page.goto(s.url + "/redoc")
    assert page.url == s.url + "/docs"


async def test_docs_show_the_operations_without_a_key(site):
    s = await site(scripted({}), ready=False)
    await s.page.goto(s.url + "/docs")
    await expect(s.page.locator(".opblock")).not_to_have_count(0)
