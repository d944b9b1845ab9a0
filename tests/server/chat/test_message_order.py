"""What is done with orders of messages that a template does not accept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from server.chat.chat_format import load_chat_formats
from server.chat.message_order import order_messages
from server.chat.messages import MAX_WARNINGS, InvalidMessage, is_regular
from server.chat.prompt import ChatFormats, Prompt, render_prompt
from server.chat.request import ChatInput
from support.fakes.engine import tokenizer

Message = dict[str, Any]

PLAIN = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
# As Qwen 3.5 and many others.
FIRST_ONLY = (
    "{% for m in messages %}{% if m.role == 'system' and not loop.first %}"
    "{{ raise_exception('System message must be at the beginning.') }}{% endif %}"
    "[{{ m.role }}] {{ m.content }}\n{% endfor %}"
)
ALTERNATING = (
    "{% if messages[0].role == 'system' %}<{{ messages[0].content }}>\n{% set messages = messages[1:] %}"
    "{% endif %}"
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
)


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str | None) -> Message:
    return {"role": "assistant", "content": text}


def system(text: str) -> Message:
    return {"role": "system", "content": text}


def render(source: str, messages: list[Message], **fields: Any) -> Prompt:
    formats = load_chat_formats(tokenizer(), source)
    assert isinstance(formats, ChatFormats)
    return render_prompt(ChatInput(messages, **fields), formats, None)


def only(*accepted: str) -> Any:
    """Accepts these forms."""
    return lambda form: " ".join(form) in accepted


def texts(messages: Sequence[Message]) -> list[str]:
    return [f"{m['role']}: {m['content']}" for m in messages]


def test_regular_conversations_are_not_probed() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    talk = [
        system("s"),
        user("u"),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "r", "tool_call_id": "a"},
        assistant("yes"),
        user("v"),
    ]
    assert is_regular(talk, False)
    assert is_regular([*talk, assistant("")], True)
    assert is_regular([], False)
    for irregular in ([*talk, user("w")], talk[:3], [user(" ")], [*talk, assistant("")]):
        assert not is_regular(irregular, False)


def test_a_later_system_message_stays_where_the_template_shows_it() -> None:
    talk = [system("s"), user("u"), assistant("a"), system("t"), user("v")]
    prompt = render(PLAIN, talk)
    assert prompt.text == "[system] s\n[user] u\n[assistant] a\n[system] t\n[user] v\n"
    assert prompt.warnings == []


def test_a_later_system_message_becomes_a_user_message_where_the_template_refuses_it() -> None:
    prompt = render(FIRST_ONLY, [system("s"), user("u"), assistant("a"), system("t"), user("v")])
    assert prompt.text == "[system] s\n[user] u\n[assistant] a\n[user] [System message]\nt\n[user] v\n"
    assert prompt.warnings == [
        "messages[3] was turned into a user message: the chat template does not accept a system message there"
    ]


def test_several_system_messages_at_the_beginning_are_merged() -> None:
    prompt = render(FIRST_ONLY, [system("s"), {"role": "developer", "content": "t"}, user("u")])
    assert prompt.text == "[system] s\n\nt\n[user] u\n"
    assert prompt.warnings == [
        "messages[1] was appended to the first system message: the chat template does not accept another one"
    ]


def test_turns_of_one_role_are_merged_with_a_blank_line_between() -> None:
    talk = [user("a"), user("b"), assistant("c"), assistant("d"), system("e"), user("f")]
    prompt = render(ALTERNATING, talk)
    assert prompt.text == "[user] a\n\nb\n[assistant] c\n\nd\n[user] [System message]\ne\n\nf\n"
    assert [warning.split(":")[0] for warning in prompt.warnings] == [
        "messages[1] was merged with the user message before it",
        "messages[3] was merged with the assistant message before it",
        "messages[4] was turned into a user message",
        "messages[5] was merged with the user message before it",
    ]


def test_answer_without_a_question_gets_an_empty_user_message_before_it() -> None:
    prompt = render(ALTERNATING, [system("s"), assistant("hello"), user("u")])
    assert prompt.text == "<s>\n[user] \n[assistant] hello\n[user] u\n"
    assert prompt.warnings[0].startswith("messages[1] got an empty user message before it")


def test_continued_answer_stays_last() -> None:
    prompt = render(ALTERNATING, [system("s"), user("a"), user("b"), assistant("Once ")])
    assert prompt.text == "<s>\n[user] a\n\nb\n[assistant] Once "
    assert prompt.in_content


def test_merged_calls_and_reasoning_are_kept() -> None:
    def calling(id: str) -> Message:
        call = {"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}}
        return {"role": "assistant", "content": None, "reasoning_content": id, "tool_calls": [call]}

    talk = [user("u"), {**assistant("so"), "reasoning_content": "hm"}, calling("x")]
    talk.append({"role": "tool", "content": "r", "tool_call_id": "x"})
    merged = order_messages(talk, only(), False).messages[1]
    assert merged["content"] == "so"
    assert merged["reasoning_content"] == "hm\nx"
    assert [call["id"] for call in merged["tool_calls"]] == ["x"]


def test_results_are_paired_with_calls_without_results() -> None:
    call = {"id": "x", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    talk = [user("u"), {"role": "assistant", "content": "", "tool_calls": [call]}]
    talk.append({"role": "tool", "content": "r", "tool_call_id": "y"})
    ordered = order_messages(talk, only(), False)
    assert ordered.messages[-1]["tool_call_id"] == "x"
    assert ordered.warnings[0].startswith("messages[2] became the result of a call before it")


def test_unpaired_calls_and_results_become_text() -> None:
    call = {"id": "x", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    talk = [user("u"), {"role": "assistant", "content": "so", "tool_calls": [call]}, user("v")]
    ordered = order_messages(talk, only(), False)
    assert texts(ordered.messages)[1] == (
        'assistant: so\n{"tool_calls": [{"name": "f", "arguments": {"a": 1}}]}'
    )
    lone = {"role": "tool", "content": "r", "tool_call_id": "x", "name": "f"}
    ordered = order_messages([user("u"), assistant("a"), lone], only(), False)
    assert texts(ordered.messages)[2] == "user: [Result of the tool f]\nr"


def test_an_empty_conversation_is_refused_by_the_number_of_its_message() -> None:
    with pytest.raises(InvalidMessage, match="must not be empty") as caught:
        order_messages([system("s"), user(" ")], only(), False)
    assert caught.value.path == "[1].content"


def test_a_template_that_needs_variables_gets_the_messages_unchanged() -> None:
    source = "{{ style + '' }}" + FIRST_ONLY
    with pytest.raises(InvalidMessage, match="System message must be at the beginning"):
        render(source, [user("u"), system("s")], extra={"style": "plain"})


def test_many_changes_are_summarized_by_their_number() -> None:
    talk = [message for i in range(20) for message in (user(str(i)), assistant("a"), system("s"))]
    warnings = order_messages(talk, only("user user assistant user user"), False).warnings
    assert len(warnings) == MAX_WARNINGS
    assert warnings[-1] == "13 more messages were changed for the chat template"


def test_invalid_arguments_are_named_by_the_clients_number() -> None:
    source = PLAIN + (
        "{% for t in tools %}{{ t.function.name }}{% endfor %}"
        "{% for m in messages %}{% for c in m.tool_calls or [] %}{{ c.function.name }}"
        "{% for k, v in c.function.arguments.items() %}{{ v }}{% endfor %}{% endfor %}{% endfor %}"
    )
    call = {"id": "x", "type": "function", "function": {"name": "f", "arguments": "[1]"}}
    talk = [system("s"), system("t"), user("u"), {"role": "assistant", "content": "", "tool_calls": [call]}]
    talk.append({"role": "tool", "content": "r", "tool_call_id": "x"})
    with pytest.raises(InvalidMessage, match="JSON object") as caught:
        render(source, talk)
    assert caught.value.path == "[3].tool_calls[0].function.arguments"
