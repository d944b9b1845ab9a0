"""Where messages are in a prompt."""

from __future__ import annotations

from server.chat.message_places import find_places

SYSTEM = {"role": "system", "content": "Be brief."}
PROMPT = "<s>Be brief.<u>hi<end><a>ok<end><u> more <end><a><think>\n"


def chat(*contents: str) -> list[dict]:
    roles = ["user", "assistant"] * len(contents)
    turns = [{"role": role, "content": text} for role, text in zip(roles, contents, strict=False)]
    return [SYSTEM, *turns]


def test_a_turn_begins_with_the_content_of_the_last_user_message():
    places = find_places(PROMPT, chat("hi", "ok", " more\n"), reasons=False)
    assert places.warnings == []
    assert [PROMPT[place:] for place in places.turn] == ["more <end><a><think>\n"]


def test_where_the_model_reasons_the_last_content_ends_before_what_the_template_adds():
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


def test_a_short_text_that_also_stands_earlier_gives_an_earlier_place():
    text = "<s>Be brief.<user>e<end>"
    places = find_places(text, chat("e"), reasons=False)
    assert text[: places.turn[0]] == "<s>Be brief.<us"


def test_a_prompt_without_user_or_content_has_no_turn():
    assert find_places("<s>Be brief.<a>", [SYSTEM], reasons=False).turn == ()
    assert find_places("<a>", [], reasons=True).turn == ()


def test_messages_that_are_left_out_are_named():
    messages = chat("first", "ok", "second")
    places = find_places("<s>Be brief.<u>second<a>", messages, reasons=False)
    assert places.warnings == [
        "messages[1] has no effect: the chat template leaves it out",
        "messages[2] has no effect: the chat template leaves it out",
    ]
    assert find_places("", chat(*"abcdefghijk"), reasons=True).turn == ()
