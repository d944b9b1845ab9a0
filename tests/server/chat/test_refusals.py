"""What is tried, and what the client is told, where a template refuses a conversation."""

from __future__ import annotations

import pytest

from server.chat.messages import InvalidMessage
from server.chat.prompt import ChatFormats, render_prompt
from server.chat.refusals import accepted_effort
from server.chat.request import ChatInput, Tool
from server.chat.template.render import TemplateFailed
from support.api.templates import chat_formats, published_formats


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def text(source: str | ChatFormats, messages, **fields) -> str:
    formats = chat_formats(source) if isinstance(source, str) else source
    return render_prompt(ChatInput(messages, **fields), formats, None).text


def test_unrenderable_message_is_named_with_the_templates_reason():
    source = "{% for m in messages %}{% if m.content == 'bad' %}{{ raise_exception('no') }}{% endif %}"
    source += "{{ m.content }}{% endfor %}"
    talk = [
        user("a"),
        {"role": "assistant", "content": "b"},
        user("bad"),
        {"role": "assistant", "content": "c"},
    ]
    with pytest.raises(InvalidMessage, match=r"the user message cannot stand here: .*: no$") as caught:
        text(source, talk)
    assert caught.value.path == "[2]"
    assert caught.value.code == "template_failed"


def test_a_template_that_refuses_everything_blames_no_message():
    with pytest.raises(TemplateFailed, match="refuses these messages: no"):
        text("{{ raise_exception('no') }}", [user("a"), user("b")])


@pytest.mark.parametrize(
    ("accepted", "effort", "expected"),
    [
        ({"low", "high"}, "xhigh", "high"),
        ({"low", "high"}, "medium", "high"),
        ({"low", "high"}, "high", None),
        (set(), "high", None),
        ({"low"}, "any", None),
    ],
)
def test_nearest_effort_the_template_accepts_is_used(accepted, effort, expected):
    def render(level: str) -> None:
        if level not in accepted:
            raise TemplateFailed(level)

    assert accepted_effort(render, effort) == expected


def test_templates_that_need_descriptions_get_empty_ones():
    tool = Tool("f", None, {"type": "object", "properties": {"x": {"type": "string"}}}, None, "t")
    assert "x" in text(
        published_formats("CohereForAI-c4ai-command-r-plus-tool_use"), [user("hi")], tools=[tool]
    )
    nested = {"type": "object", "properties": {"y": {"type": "object", "properties": {"z": {}}}}}
    items = {"type": "array", "items": nested}
    tool = Tool("f", None, {"type": "object", "properties": {"x": items, "y": nested}}, None, "t")
    assert '"z"' in text(
        published_formats("NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use"), [user("hi")], tools=[tool]
    )
