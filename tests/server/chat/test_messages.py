"""Messages in the form that a template wants, and where they are in a prompt."""

from __future__ import annotations

import pytest

from server.chat.messages import InvalidMessage, WaitingCalls, adapt_messages, find_places, pair_calls
from server.chat.template.capabilities import TemplateCapabilities

FULL = TemplateCapabilities(
    tools=True, calls=True, parallel_calls=True, results=True, object_arguments=True, null_content=True
)


def call(arguments: str = '{"a": 1}', id: str = "call_1", name: str = "f") -> dict:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def calling(*calls: dict, content: str | None = None) -> dict:
    return {"role": "assistant", "content": content, "tool_calls": list(calls or [call()])}


def result(content: str = "1", id: str = "call_1") -> dict:
    return {"role": "tool", "content": content, "tool_call_id": id}


def user(content: object = "hi") -> dict:
    return {"role": "user", "content": content}


def test_arguments_become_objects_if_the_template_wants_them():
    assert adapt_messages([calling()], FULL)[0]["tool_calls"][0]["function"]["arguments"] == {"a": 1}
    assert adapt_messages([calling(call(""))], FULL)[0]["tool_calls"][0]["function"]["arguments"] == {}
    text = TemplateCapabilities(calls=True, parallel_calls=True)
    assert adapt_messages([calling()], text)[0]["tool_calls"][0]["function"]["arguments"] == '{"a": 1}'


@pytest.mark.parametrize("arguments", ["{", "[1]", "5", "NaN", "{'a': 1}", "[" * 10_000])
def test_arguments_that_are_not_an_object_are_named(arguments):
    with pytest.raises(InvalidMessage, match="JSON") as caught:
        adapt_messages([user(), calling(call(), call(arguments))], FULL)
    assert caught.value.path == "[1].tool_calls[1].function.arguments"


def test_missing_content_is_null_or_empty_as_the_template_needs():
    assert adapt_messages([calling()], FULL)[0]["content"] is None
    assert (
        adapt_messages([calling()], TemplateCapabilities(calls=True, parallel_calls=True))[0]["content"] == ""
    )
    assert adapt_messages([{"role": "assistant", "content": None}], FULL)[0]["content"] == ""


def test_content_parts_are_joined_unless_the_template_takes_them():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert adapt_messages([user(parts)], TemplateCapabilities())[0]["content"] == "a\nb"
    assert adapt_messages([user(parts)], TemplateCapabilities(typed_content=True))[0]["content"] == parts
    assert (
        adapt_messages([{"role": "system", "content": parts}], TemplateCapabilities(typed_content=True))[0][
            "content"
        ]
        == "a\nb"
    )
    assert adapt_messages([user(parts[:1])], TemplateCapabilities(typed_content=True))[0]["content"] == "a"
    only = TemplateCapabilities(string_content=False, typed_content=True)
    assert adapt_messages([user("a")], only)[0]["content"] == [{"type": "text", "text": "a"}]


def test_developer_becomes_system_if_the_template_knows_no_developer():
    talk = [{"role": "developer", "content": "x"}, user()]
    assert adapt_messages(talk, TemplateCapabilities())[0]["role"] == "system"
    assert adapt_messages(talk, TemplateCapabilities(developer=True))[0]["role"] == "developer"


def test_system_message_the_template_does_not_show_joins_the_user_message():
    system = {"role": "system", "content": "Be brief."}
    assert adapt_messages([system, system, user(), user()], TemplateCapabilities(system=False)) == [
        user("Be brief.\nBe brief.\nhi"),
        user(),
    ]
    assert adapt_messages([system], TemplateCapabilities(system=False)) == [system]


def test_reasoning_is_passed_under_every_name():
    message = {"role": "assistant", "content": "x", "reasoning_content": "hm"}
    fitted = adapt_messages([message], TemplateCapabilities())[0]
    assert fitted["reasoning_content"] == fitted["thinking"] == "hm"


def test_call_ids_are_shortened_to_nine_characters_if_needed():
    short = TemplateCapabilities(calls=True, parallel_calls=True, short_ids=True)
    fitted = adapt_messages([calling(call(), call(id="abcdefgh1")), result(), result(id="abcdefgh1")], short)
    first, second = (created["id"] for created in fitted[0]["tool_calls"])
    assert second == "abcdefgh1"
    assert len(first) == 9
    assert first.isalnum()
    assert [message["tool_call_id"] for message in fitted[1:]] == [first, second]


def test_results_get_the_name_of_their_tool():
    fitted = adapt_messages([calling(call(id="x", name="f")), result(id="x"), result(id="y")], FULL)
    assert fitted[1]["name"] == "f"
    assert "name" not in fitted[2]


def test_parallel_calls_are_split_if_the_template_takes_one():
    talk = [
        user(),
        calling(call(id="x"), call(id="y"), content="So"),
        result("1", "y"),
        result("2", "x"),
        user(),
    ]
    fitted = adapt_messages(talk, TemplateCapabilities(calls=True))
    shown = [
        (m["role"], m["content"], m.get("tool_call_id") or [c["id"] for c in m.get("tool_calls", ())])
        for m in fitted
    ]
    assert shown == [
        ("user", "hi", []),
        ("assistant", "So", ["x"]),
        ("tool", "2", "x"),
        ("assistant", "", ["y"]),
        ("tool", "1", "y"),
        ("user", "hi", []),
    ]


def test_calls_and_results_without_ids_are_paired_in_order_and_by_their_tool():
    calls = [call(id="c1", name="a"), call(id="", name="b"), call(id="", name="a")]
    of_b = {"role": "tool", "content": "of b", "name": "b"}
    messages = [user(), calling(*calls), of_b, result(id="c1"), {"role": "tool", "content": "of the last"}]
    _, assistant, *results = pair_calls(messages)
    assert [c["id"] for c in assistant["tool_calls"]] == ["c1", "call_1_1", "call_1_2"]
    assert [r["tool_call_id"] for r in results] == ["call_1_1", "c1", "call_1_2"]
    assert calls[1]["id"] == ""


def test_result_without_a_call_stays_as_it_is():
    messages = [user(), {"role": "tool", "content": "x", "name": "b"}, result(id="other")]
    assert pair_calls(messages) == messages


class CountedName(str):
    """Counts how often it is compared."""

    compared = 0

    def __eq__(self, other):
        type(self).compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_very_many_waiting_calls_are_not_searched():
    calls = WaitingCalls()
    for i in range(1000):
        calls.add(f"call_{i}", CountedName("find"))
    CountedName.compared = 0
    assert {calls.first("other") for _ in range(1000)} == {""}
    assert calls.first("find") == calls.first("") == "call_0"
    assert CountedName.compared < 1000


def test_waiting_call_with_a_duplicate_id_belongs_to_the_last_tool():
    calls = WaitingCalls()
    for id, tool in (("1", "a"), ("1", "b"), ("2", "a")):
        calls.add(id, tool)
    assert (calls.first("a"), calls.first("b")) == ("2", "1")
    calls.remove("1")
    calls.remove("none")
    assert (calls.first("b"), calls.first("")) == ("", "2")


SYSTEM = {"role": "system", "content": "Be brief."}
PROMPT = "<s>Be brief.<u>hi<end><a>ok<end><u> more <end><a><think>\n"


def chat(*contents: str) -> list[dict]:
    roles = ["user", "assistant"] * len(contents)
    turns = [{"role": role, "content": text} for role, text in zip(roles, contents, strict=False)]
    return [SYSTEM, *turns]


def test_turn_begins_at_the_content_of_the_last_user_message():
    places = find_places(PROMPT, chat("hi", "ok", " more\n"), reasons=False)
    assert places.warnings == []
    assert [PROMPT[place:] for place in places.turn] == ["more <end><a><think>\n"]


def test_last_content_of_a_reasoning_model_ends_before_the_templates_addition():
    places = find_places(PROMPT, chat("hi", "ok", "more"), reasons=True)
    assert [PROMPT[place:] for place in places.turn] == ["more <end><a><think>\n", " <end><a><think>\n"]


def test_results_of_tools_belong_to_the_turn_of_the_user_who_asked():
    text = "<u>how warm?<a>call<t>20 C<a>"
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "how warm?"}]},
        {"role": "assistant", "content": None},
        {"role": "tool", "content": "20 C"},
    ]
    assert [text[place:] for place in find_places(text, messages, reasons=True).turn] == [
        "how warm?<a>call<t>20 C<a>",
        "<a>",
    ]


def test_short_text_found_earlier_gives_an_earlier_position():
    text = "<s>Be brief.<user>e<end>"
    places = find_places(text, chat("e"), reasons=False)
    assert text[: places.turn[0]] == "<s>Be brief.<us"


def test_a_prompt_without_user_or_content_has_no_turn():
    assert find_places("<s>Be brief.<a>", [SYSTEM], reasons=False).turn == ()
    assert find_places("<a>", [], reasons=True).turn == ()


def test_messages_the_template_leaves_out_are_named():
    messages = chat("first", "ok", "second")
    places = find_places("<s>Be brief.<u>second<a>", messages, reasons=False)
    assert places.warnings == [
        "messages[1] has no effect: the chat template leaves it out",
        "messages[2] has no effect: the chat template leaves it out",
    ]
    assert find_places("", chat(*"abcdefghijk"), reasons=True).turn == ()
