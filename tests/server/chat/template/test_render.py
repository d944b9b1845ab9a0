"""Chat templates: rendered as the models' makers do, and bounded whatever is in them."""

from __future__ import annotations

import contextlib
import json
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment

from server.chat.template.render import TemplateFailed, TemplateLimitExceeded, TemplateSandbox
from support.api.templates import TALK, chat_template, render
from support.quick import every, examples

ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
HUGE = "{% set ns = namespace(s='ab') %}{% for a in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}"
CRASHING = "{{ " + "(" * 50_000 + "1" + ")" * 50_000 + " }}"
GOOD = [
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m['content']|trim }}{{ eos_token }}{% endfor %}",
    """{% for m in messages %}
        {%- if loop.first %}first{% elif loop.last %}last{% endif %}
        {{ loop.index0 }}/{{ loop.length }} {{ loop.previtem.role if loop.previtem is defined else '-' }}
    {% endfor %}""",
    """{% set ns = namespace(n=0, s='') %}{% for m in messages %}{% set ns.n = ns.n + 1 %}
    {% set ns.s = ns.s ~ m.content[:2] ~ ns.n %}{% endfor %}
    {{ ns.s }}|{{ ns.n * 3 % 5 }}|{{ 'ab' * 3 }}|{{ 2 ** 5 }}""",
    """{% macro turn(role, text='x') %}[{{ role|upper }}:{{ text|default('') }}]{% endmacro %}
    {% for m in messages %}{{ turn(m.role, m.content) }}{% endfor %}{{ turn('end') }}""",
    """{% for m in messages if m.role != 'system' %}{% if loop.index > 2 %}{% break %}{% endif %}
    {{ m.content.split(' ')[0].strip() }},{% endfor %}""",
    """{{ messages[1:] | map(attribute='role') | join('-') }} {{ messages[::-1][0].role }}
    {{ messages | selectattr('role', 'equalto', 'user') | list | length }}
    {{ {'b': 1, 'a': [1, 2]} | tojson }} {{ 'a-b'.replace('-', '+') }}""",
    """{% for m in messages recursive %}{{ m.role }}{% endfor %}
    {% set x %}a{{ messages|length }}b{% endset %}{{ x }}""",
    """{{ messages[0].content.startswith('Be') }} {{ 'x' in 'xyz' }} {{ none is none }} {{ tools is none }}
    {% if not undefined_thing %} ok{% endif %} {{ '%s-%d' % ('a', 5) }} {{ 'a {} b'.format(3) }}""",
    """{% set a = namespace(x=1) %}
    {% set b = namespace(y=[a, a]) %}{% macro m(n) %}{{ n.y[0].x }}{% endmacro %}
    {{ m(b) }}{% set c = [b, {'k': b}] %}{{ c | length }}""",
    """{% for k, v in {'b': 1, 'a': 2} | dictsort %}{{ k }}={{ v }};{% endfor %}
    {% for k, v in {'x': 1}.items() %}{{ k }}{% endfor %}{{ range(3) | list }}{{ (1, 2) }}
    {{ [1, 'a'] + [none] }}""",
    """{{ 'line1\nline2' | indent(2) }}|{{ 'line1\n\nline2' | indent(2, true) }}|{{ ' a ' | trim }}
    {{ 'abc' | first }}""",
]


@pytest.mark.parametrize("source", GOOD)
def test_guards_do_not_change_the_text(source):
    plain = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    plain.filters["tojson"] = lambda x: json.dumps(x, ensure_ascii=False)
    expected = plain.from_string(source).render(
        messages=TALK, bos_token="<s>", eos_token="</s>", add_generation_prompt=True, tools=None
    )
    assert render(source) == expected


def test_extra_variables_reach_the_template_unless_reserved():
    source = "{% if add_generation_prompt %}go{% endif %}{{ thinking }}"
    assert render(source) == "go"
    assert render(source, add_generation_prompt=False, extra={"thinking": True}) == "True"
    for name in ("messages", "bos_token", "raise_exception", "not a name", "range"):
        with pytest.raises(TemplateFailed, match="cannot be set"):
            render(source, extra={name: 1})


GROWTH = [  # s begins as 'ab' and becomes this, sixty times
    "ns.s + ns.s",
    "ns.s ~ ns.s",
    "ns.s.replace('a', ns.s)",
    "ns.s|replace('a', ns.s)",
    "[ns.s, ns.s]|join(ns.s)",
    "ns.s.join([ns.s, ns.s])",
    "'%s%s' % (ns.s, ns.s)",
    "'{0}{0}'.format(ns.s)",
    "2 if ns.s is string else ns.s * ns.s",
    "[ns.s, ns.s]",
    "{'x': ns.s, 'y': ns.s}",
    "[ns.s] + [ns.s]",
    "dict(x=ns.s, y=ns.s)",
    "(ns.s, ns.s)",
    "namespace(x=ns.s, y=ns.s)",
]
BOMBS = [
    "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
    "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}",
    "{% for a in range(10**9) %}{% endfor %}",
    "{{ range(10**12) | list }}",
    "{{ 'a' * 10**10 }}",
    "{{ 10**10 * 'a' }}",
    "{{ [0] * 10**9 }}",
    "{{ 9 ** 9 ** 9 }}",
    "{{ 'a' | center(10**9) }}",
    "{{ 'a'.ljust(10**9) }}",
    "{{ 'a'.zfill(10**9) }}",
    "{{ '%99999999d' % 1 }}",
    "{{ '%*d' % (99999999, 1) }}",
    "{{ '{:99999999}'.format(1) }}",
    "{{ '{:{}}'.format(1, 99999999) }}",
    "{{ '\\t'.expandtabs(10**9) }}",
    "{{ 'x' | indent(10**9) }}",
    "{{ [1] | tojson(indent=10**9) }}",
    "{{ lipsum(10**6) }}",
    "{{ [1] | batch(10**9, 'x') | list }}",
    "{{ [1] | slice(10**9) | list }}",
    "{{ strftime_now('%99999999d') }}",
    "{% set ns = namespace() %}{% set ns.me = ns %}{{ ns }}",
    "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "{% for x in [[[]]] recursive %}{{ loop([x, x]) }}{% endfor %}",
    "{% macro m() %}"
    + "x" * 10_000
    + "{% endmacro %}{% for a in range(9999) %}{% set y = m() %}{% endfor %}",
    "{% set y %}{% for a in range(9999) %}" + "x" * 10_000 + "{% endfor %}{% endset %}",
    "{{ messages | map('tojson') | map('tojson') | map('center', 10**9) | list }}",
    "{% for a in range(9999) %}{{ messages[1].content * 9999 }}{% endfor %}",
    "{{ 'a' * 9999 }}" * 9000,
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "{{ 'x'" + " ~ 'x'" * 20_000 + " }}",
    "{{ 1" + "+1" * 20_000 + " }}",
    *(
        "{% set ns = namespace(s='ab') %}{% for a in range(60) %}{% set ns.s = " + value + " %}{% endfor %}"
        "{{ ns.s }}{{ ns.s == ns.s|string }}{{ ns.s|tojson }}"
        for value in GROWTH
    ),
]


@pytest.mark.timeout(100)
@pytest.mark.parametrize("source", every(13, BOMBS), ids=range(len(BOMBS)))
def test_exploding_templates_are_limited_or_refused(source):
    """Either an error or a bounded text, long before the test's time is up."""
    with contextlib.suppress(TemplateFailed):
        assert len(render(source)) <= 1 << 24


def test_long_conversation_is_rendered():
    talk = [{"role": "user", "content": "word " * 2000}] * 400  # 4 MB
    text = render(GOOD[0], talk)
    assert len(text) > 3_900_000


def test_errors_show_no_python_internals():
    for source in ("{{ messages + 1 }}", "{{ 1 / 0 }}", "{{ messages[0].content.foo() }}", "{{ none.x.y }}"):
        with pytest.raises(TemplateFailed) as caught:
            render(source)
        assert "/" not in str(caught.value).replace("messages", "")
        assert "0x" not in str(caught.value)


def test_invalid_templates_are_refused():
    for source in ("{% for %}", "{{ x | nofilter }}", "{% endif %}", "{{ 'x", "x" * 300_000, "{% unknown %}"):
        with pytest.raises(TemplateFailed, match="chat template"):
            chat_template(source)


PIECES = [
    *(
        "{{ ",
        " }}",
        "{% ",
        " %}",
        "{#",
        "#}",
        "for x in ",
        "endfor",
        "if ",
        "endif",
        "set y = ",
        "macro m() ",
    ),
    *(
        "messages",
        "namespace()",
        "range(99)",
        "x",
        ".",
        "|",
        "[",
        "]",
        "(",
        ")",
        "'",
        "a",
        "1",
        " ~ ",
        " * ",
        "-",
    ),
]


@examples(150)
@given(
    st.lists(
        st.sampled_from(PIECES),
        max_size=14,
    ).map("".join)
)
def test_any_source_renders_or_is_refused(source):
    with contextlib.suppress(TemplateFailed):
        chat_template(source).render(TALK)


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


def test_source_that_crashes_the_compiler_is_refused(sandbox: TemplateSandbox) -> None:
    with pytest.raises(TemplateFailed):
        sandbox.compile(CRASHING)
    sandbox.compile("{{ 1 }}")


def test_output_is_limited(sandbox: TemplateSandbox) -> None:
    with pytest.raises(TemplateFailed, match="makes more than"):
        sandbox.render("{{ 'x' * (1 + 2 ** 24) }}", {})


def test_concurrent_threads_get_their_own_text(sandbox: TemplateSandbox) -> None:
    texts: dict[int, str] = {}

    def render(i: int) -> None:
        texts[i] = sandbox.render("{{ i }}", {"i": i})

    threads = [threading.Thread(target=render, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == {i: str(i) for i in range(8)}
