"""Templates render in a process with limits: whatever they do, the next one renders again."""

from __future__ import annotations

import threading

import pytest

from server.chat.template.sandbox import TemplateFailed, TemplateLimitExceeded, TemplateSandbox
from support.quick import every

ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
HUGE = "{% set ns = namespace(s='ab') %}{% for a in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}"
CRASHING = "{{ " + "(" * 50_000 + "1" + ")" * 50_000 + " }}"


@pytest.fixture(scope="module")
def sandbox() -> TemplateSandbox:
    return TemplateSandbox(cpu_s=0.5)


def test_variables_and_text_keep_their_values(sandbox: TemplateSandbox) -> None:
    value = {"a": [1, 2.5, None, True, 10**30], "b": "é🍕\ud800", "c": {}}
    assert sandbox.render("{{ x }}|{{ x.b }}", {"x": value}) == f"{value}|{value['b']}"


@pytest.mark.parametrize("source", every(2, [ENDLESS, HUGE]))
def test_unbounded_template_fails_and_the_next_one_renders(sandbox: TemplateSandbox, source: str) -> None:
    with pytest.raises(TemplateFailed):
        sandbox.render(source, {})
    assert sandbox.render("{{ 1 }}", {}) == "1"


def test_too_much_memory_raises_limit_exceeded() -> None:
    with pytest.raises(TemplateLimitExceeded, match="too much memory"):
        TemplateSandbox(cpu_s=2).render(HUGE, {})


def test_memory_of_a_failed_template_is_free_for_the_next_one() -> None:
    sandbox = TemplateSandbox(cpu_s=2)
    large = "{% set text = 'x' * n %}"
    for _ in range(3):
        with pytest.raises(TemplateFailed, match="refuses these messages: no"):
            sandbox.render(large + "{{ raise_exception('no') }}", {"n": 300_000_000})
        assert sandbox.render(large + "ok", {"n": 300_000_000}) == "ok"


def test_too_much_processor_time_raises_limit_exceeded(sandbox: TemplateSandbox) -> None:
    with pytest.raises(TemplateLimitExceeded, match=r"more than 0\.5 s of processor time"):
        sandbox.render(ENDLESS, {})


def test_source_that_breaks_the_compiler_fails(sandbox: TemplateSandbox) -> None:
    with pytest.raises(TemplateFailed):
        sandbox.compile(CRASHING)
    sandbox.compile("{{ 1 }}")


def test_output_is_limited(sandbox: TemplateSandbox) -> None:
    with pytest.raises(TemplateFailed, match="makes more than"):
        sandbox.render("{{ 'x' * (1 + 2 ** 24) }}", {})


def test_threads_take_turns(sandbox: TemplateSandbox) -> None:
    texts: dict[int, str] = {}

    def render(i: int) -> None:
        texts[i] = sandbox.render("{{ i }}", {"i": i})

    threads = [threading.Thread(target=render, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == {i: str(i) for i in range(8)}
