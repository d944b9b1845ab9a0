"""What probing finds out about chat templates, those of published models among them."""

from __future__ import annotations

import pytest

from server.chat.template.capabilities import TemplateCapabilities, probe_capabilities
from support.api.templates import chat_template, published_source


def capabilities(source: str) -> TemplateCapabilities:
    return probe_capabilities(chat_template(source))


def published(name: str) -> TemplateCapabilities:
    return capabilities(published_source(name))


def test_capabilities_follow_what_a_template_renders():
    plain = "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}"
    assert capabilities(plain) == TemplateCapabilities()
    assert not capabilities("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}").system
    refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}"
    assert not capabilities(refuses + plain).system
    typed = capabilities(
        "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}"
    )
    assert typed.typed_content
    assert not typed.string_content
    assert capabilities("{% for t in tools %}{{ t.function.name }}{% endfor %}" + plain).empty_tools


def test_argument_form_follows_how_a_template_prints_it():
    head = "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.function.name }}"
    tail = "{% endfor %}{% endfor %}"
    assert capabilities(head + "{{ c.function.arguments | tojson }}" + tail).object_arguments
    assert capabilities(
        head + "{% for k, v in c.function.arguments.items() %}{{ v }}{% endfor %}" + tail
    ).object_arguments
    as_text = capabilities(head + "{{ c.function.arguments }}" + tail)
    assert as_text.calls
    assert not as_text.object_arguments
    assert not capabilities(head + "{{ '' + c.function.arguments }}" + tail).object_arguments
    assert not capabilities(head + tail).calls
    assert not as_text.null_content  # it prints "None"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "Qwen-Qwen3-0.6B",
            {"tools", "calls", "parallel_calls", "results", "object_arguments", "reasoning", "system"},
        ),
        (
            "meta-llama-Llama-3.1-8B-Instruct",
            {"tools", "calls", "results", "object_arguments", "system", "null_content"},
        ),
        (
            "mistralai-Mistral-Nemo-Instruct-2407",
            {
                "tools",
                "calls",
                "parallel_calls",
                "results",
                "object_arguments",
                "system",
                "null_content",
                "short_ids",
            },
        ),
        (
            "meetkai-functionary-medium-v3.2",
            {"tools", "calls", "parallel_calls", "results", "system", "null_content"},
        ),
        ("google-gemma-2-2b-it", set()),
        (
            "openai-gpt-oss-120b",
            {
                "tools",
                "calls",
                "one_text_per_call",
                "results",
                "object_arguments",
                "reasoning",
                "system",
                "developer",
            },
        ),
        ("microsoft-Phi-3.5-mini-instruct", {"system"}),
    ],
)
def test_capabilities_of_published_templates_are_as_recorded(name, expected):
    shown = published(name)
    names = {n for n in shown.__dataclass_fields__ if getattr(shown, n)} - {"string_content", "typed_content"}
    assert names - {"object_arguments"} == expected - {"object_arguments"}
    if "calls" in expected:
        assert shown.object_arguments == ("object_arguments" in expected)
