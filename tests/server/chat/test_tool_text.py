"""Tools, calls and results in prompts of templates that do not render them."""

from __future__ import annotations

import pytest

from server.chat.messages import InvalidMessage
from server.chat.prompt import ChatFormats, render_prompt
from server.chat.request import ChatInput
from server.chat.template.special_tokens import special_token_pattern
from server.chat.tool_calls.tool_call_format import WritableFormat
from support.api.templates import PLAIN, chat_formats, published_formats
from support.api.tools import FORMATS, NOW, WEATHER

TALK = [{"role": "system", "content": "S"}, {"role": "user", "content": "hi"}]


def text(formats: ChatFormats, messages, **fields) -> str:
    return render_prompt(ChatInput(messages, **fields), formats, None).text


def test_tools_that_the_template_does_not_show_are_described_by_the_system():
    head, _, tail = text(chat_formats(PLAIN), TALK, tools=[WEATHER, NOW]).partition("\n[user] hi")
    assert head.startswith("[system] S\n\n")
    assert '"name": "get_weather"' in head
    assert '{"tool_calls": [{"name": "tool name", "arguments": {"argument name": "value"}}]}' in head
    assert tail == "\n[me]"
    assert text(chat_formats(PLAIN), TALK[1:], tools=[NOW]).startswith("[system] You can call")
    r1 = text(published_formats("deepseek-ai-DeepSeek-R1-Distill-Qwen-32B"), TALK, tools=[NOW])
    assert "<｜tool▁call▁begin｜>function<｜tool▁sep｜>tool name" in r1  # noqa: RUF001


def test_calls_and_results_that_the_template_does_not_show_are_reported_as_text():
    function = {"name": "now", "arguments": '{"x": 1}'}
    talk = [
        *TALK,
        {
            "role": "assistant",
            "content": "So",
            "tool_calls": [{"id": "a", "type": "function", "function": function}],
        },
        {"role": "tool", "content": "12:00", "tool_call_id": "a"},
        {"role": "tool", "content": "13:00", "tool_call_id": "b"},
        {"role": "user", "content": "well?"},
    ]
    assert text(chat_formats(PLAIN), talk) == (
        '[system] S\n[user] hi\n[assistant] So\n{"tool_calls": [{"name": "now", "arguments": {"x": 1}}]}\n'
        '[user] {"tool_response": {"name": "now", "content": "12:00"}}\n'
        '{"tool_response": {"name": null, "content": "13:00"}}\nwell?\n[me]'
    )


def called(arguments: str, content: str = "") -> list:
    function = {"name": "now", "arguments": arguments}
    calls = [{"id": "a", "type": "function", "function": function}] * 2
    return [
        TALK[1],
        {"role": "assistant", "content": content, "tool_calls": calls},
        {"role": "tool", "content": "12:00", "tool_call_id": "a"},
    ]


def test_calls_are_written_in_the_models_own_format():
    shown = text(published_formats("LFM2-8B-A1B"), called('{"x": 1.1, "y": "it\'s"}', "So"), tools=[NOW])
    call = """now(x=1.1, y="it's")"""
    assert f"assistant\nSo<|tool_call_start|>[{call}, {call}]<|tool_call_end|><|im_end|>" in shown
    assert "<|im_start|>tool\n<|tool_response_start|>12:00<|tool_response_end|><|im_end|>" in shown
    granite = text(published_formats("ibm-granite-granite-3.3-2B-Instruct"), called('{"x": 1}'), tools=[NOW])
    call = '{"name": "now", "arguments": {"x": 1}}'
    assert f"<|tool_call|>[{call}, {call}]<|end_of_text|>" in granite


def test_only_the_markers_of_written_calls_are_special_tokens():
    pattern = special_token_pattern(["<|tool_call_start|>", "<|im_end|>"])
    chat = ChatInput(called('{"x": "<|im_end|>"}', "<|tool_call_start|>"), tools=[NOW])
    pieces = render_prompt(chat, published_formats("LFM2-8B-A1B"), pattern).pieces
    whole = "".join(pieces)
    assert whole.count("<|tool_call_start|>") == 2
    assert sum(piece.count("<|tool_call_start|>") for piece in pieces) == 1  # before the calls
    assert whole.count("<|im_end|>") - sum(piece.count("<|im_end|>") for piece in pieces) == 2


def test_written_calls_need_arguments_that_are_json():
    with pytest.raises(InvalidMessage) as failure:
        text(published_formats("LFM2-8B-A1B"), called("{"), tools=[NOW])
    assert failure.value.path == "[1].tool_calls[0].function.arguments"


def test_written_values_other_than_strings_are_marked_and_keep_their_digits():
    call_format = FORMATS["deepseek-v3.2"]
    assert isinstance(call_format, WritableFormat)
    call = call_format.written([("f", '{"a": "x", "b": 1.00000000000000000001}')])
    assert ' name="a" string="true">x<' in call
    assert ' name="b" string="false">1.00000000000000000001<' in call
