"""Each chat template of llama.cpp's collection: its format of tool calls, and its markers of reasoning.

Calls of earlier turns are read again from what the template writes, and a grammar allows exactly that text. A
template that is new in the collection fails by name until it has a line here.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import pytest

from engine import exact_json
from engine.constraint.gbnf.lark import with_checked_schemas
from server.chat.chat_format import load_chat_format
from server.chat.prompt import ChatFormat, ChatFormats, Prompt, render_prompt
from server.chat.request import ChatInput, ReasoningOptions, Tool
from server.chat.tool_calls.grammar import GrammarTerminals
from server.chat.tool_calls.rendered_calls import common_length
from server.chat.tool_calls.tool_call_format import ToolOptions
from support.api.grammars import MARKER_IDS, matches
from support.api.templates import SANDBOX, published_source
from support.api.tools import read
from support.builders.vocabularies import models_dir
from support.fakes.engine import tokenizer
from support.quick import every

THINK = "<think>"
START_THINKING = "<|START_THINKING|>"
STEPS = "Here are my reasoning steps:\n"
# By template: its format of tool calls, and what opens reasoning.
EXPECTED: dict[str, tuple[str, str | None]] = {
    "Apertus-8B-Instruct": ("apertus", "<|inner_prefix|>"),
    "Apriel-1.6-15b-Thinker-fixed": ("derived", STEPS),
    "Bielik-11B-v3.0-Instruct": ("hermes", THINK),
    "ByteDance-Seed-OSS": ("seed", "<seed:think>"),
    "Cohere2MoE": ("command-r", START_THINKING),
    "CohereForAI-c4ai-command-r-plus-tool_use": ("command-r-plus", None),
    "CohereForAI-c4ai-command-r7b-12-2024-tool_use": ("command-r", START_THINKING),
    "GLM-4.6": ("glm", THINK),
    "GLM-4.7-Flash": ("glm", THINK),
    "GigaChat3-10B-A1.8B": ("derived", None),
    "GigaChat3.1-10B-A1.8B": ("derived", None),
    "HuggingFaceTB-SmolLM3-3B": ("generic", THINK),
    "Kimi-K2-Instruct": ("kimi", None),
    "Kimi-K2-Thinking": ("kimi", THINK),
    "Kimi-K3": ("kimi-k3", "<|open|>think<|sep|>"),
    "LFM2-8B-A1B": ("lfm2", None),
    "LFM2.5-8B-A1B": ("lfm2", THINK),
    "LFM2.5-Instruct": ("lfm2", THINK),
    "MiMo-VL": ("hermes", None),
    "MiniMax-M1": ("derived", None),
    "MiniMax-M2": ("minimax-m2", THINK),
    "MiniMax-M3": ("minimax-m3", "<mm:think>"),
    "Mistral-Small-3.2-24B-Instruct-2506": ("mistral-named", None),
    "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": ("qwen-coder", THINK),
    "NVIDIA-Nemotron-Nano-v2": ("derived", THINK),
    "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use": ("hermes", None),
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use": ("hermes", None),
    "Qwen-QwQ-32B": ("hermes", THINK),
    "Qwen-Qwen2.5-7B-Instruct": ("hermes", None),
    "Qwen-Qwen3-0.6B": ("hermes", THINK),
    "Qwen3-Coder": ("qwen-coder", None),
    "Qwen3.5-4B": ("qwen-coder", THINK),
    "Reka-Edge": ("hermes", THINK),
    "Spark2.5": ("glm", THINK),
    "StepFun3.5-Flash": ("qwen-coder", THINK),
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B": ("deepseek-r1", THINK),
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B": ("deepseek-r1", THINK),
    "deepseek-ai-DeepSeek-V3.1": ("deepseek-v3.1", THINK),
    "deepseek-ai-DeepSeek-V3.2": ("deepseek-v3.2", THINK),
    "deepseek-ai-DeepSeek-V4": ("deepseek-v4", THINK),
    "deepseek-ai-DeepSeek-V4-Flash-0731": ("deepseek-v4", THINK),
    "fireworks-ai-llama-3-firefunction-v2": ("derived", None),
    "google-gemma-2-2b-it": ("generic", None),
    "google-gemma-4-31B-it": ("gemma", "<|channel>thought\n"),
    "google-gemma-4-31B-it-interleaved": ("gemma", "<|channel>thought\n"),
    "ibm-granite-granite-3.3-2B-Instruct": ("granite", THINK),
    "ibm-granite-granite-4.0": ("hermes", None),
    "ibm-granite-granite-4.1": ("hermes", None),
    "inclusionai-ling-3.0-flash": ("glm", THINK),
    "llama-cpp-deepseek-r1": ("deepseek-r1", THINK),
    "llama-cpp-rwkv-world": ("generic", THINK),
    "meetkai-functionary-medium-v3.1": ("functionary", None),
    "meetkai-functionary-medium-v3.2": ("functionary-v3.2", None),
    "meta-llama-Llama-3.1-8B-Instruct": ("llama3", None),
    "meta-llama-Llama-3.2-3B-Instruct": ("llama3", None),
    "meta-llama-Llama-3.3-70B-Instruct": ("llama3", None),
    "microsoft-Phi-3.5-mini-instruct": ("generic", None),
    "mistralai-Ministral-3-14B-Reasoning-2512": ("mistral-named", "[THINK]"),
    "mistralai-Mistral-Nemo-Instruct-2407": ("mistral", None),
    "moonshotai-Kimi-K2": ("kimi", None),
    "muse-glimmer": ("muse", "to=self<|message|>"),
    "openai-gpt-oss-120b": ("harmony", "<|channel|>analysis<|message|>"),
    "openbmb-MiniCPM5-1B": ("minicpm", THINK),
    "poolside-Laguna-S-2.1": ("glm", THINK),
    "poolside-Laguna-XS-2.1": ("glm", THINK),
    "poolside-Laguna-XS.2": ("glm", THINK),
    "tencent-Hy3": ("hunyuan3", "<think:opensource>"),
    "unsloth-Apriel-1.5": ("derived", STEPS),
    "unsloth-mistral-Devstral-Small-2507": ("mistral-named", None),
    "upstage-Solar-Open-100B": ("solar", "<|think|>"),
}
ALL = sorted(EXPECTED)
SOME = every(4, ALL)

PARAMETERS = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": "Its name"},
        "code": {"type": "string", "description": "A program"},
        "days": {"type": "integer", "description": "How many"},
        "degrees": {"type": "number", "description": "How warm"},
        "list": {
            "type": "array",
            "description": "Some",
            "items": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}},
        },
        "nested": {
            "type": "object",
            "description": "A few",
            "properties": {"deep": {"type": "object", "properties": {"x": {"type": "boolean"}}}},
        },
        "wet": {"type": "boolean", "description": "If it rains"},
    },
    "required": ["city"],
}
TOOLS = (
    Tool("get_weather", "The weather", PARAMETERS, None, ""),
    Tool("now", "The time", None, None, ""),
)
NUMBER = "0.10000000000000000555111512312578270211815834045410156250001"
# Names are in alphabetical order, in which some templates write them.
TEXTS = {"city": "Zürich \"x\" <b>&amp;</b> 'y' ]}", "code": "if a < b:\n\treturn \"<p>\"\n# 'end'\n"}
EVERYTHING = json.dumps(TEXTS)[:-1] + (
    f', "days": -12345678901234567890, "degrees": {NUMBER}, "list": [{{"a": "", "b": 1}}, {{"a": "]"}}], '
    '"nested": {"deep": {"x": false}}, "wet": true}'
)
# As a grammar has it in any syntax: no escapes, nothing that Python writes in another way.
PLAIN = '{"city": "Zurich <b>", "code": "x", "days": -12, "degrees": 0.25}'

NESTED = (
    '{"city": "x", "list": [{"a": "y", "b": 1}, {"a": "z"}], "nested": {"deep": {"x": false}}, "wet": true}'
)

# Whose templates write Python's values for what is not text, which a grammar does not.
PYTHON = ("ByteDance-Seed-OSS", "openbmb-MiniCPM5-1B")
# Whose templates lay calls out as the models do not: JSON in many lines, another order in the header.
OTHER_LAYOUT = ("CohereForAI-c4ai-command-r-plus-tool_use", "openai-gpt-oss-120b")
# What ends another message before the calls.
BEFORE = {"GigaChat3-10B-A1.8B": "<|message_sep|>\n\n"}
# Whose template writes quotes in quotes without escapes.
UNESCAPED = ("LFM2.5-8B-A1B",)
# Whose templates write no text before calls.
SILENT = (
    "Cohere2MoE",
    "CohereForAI-c4ai-command-r7b-12-2024-tool_use",
    "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use",
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use",
    "Mistral-Small-3.2-24B-Instruct-2506",
    "mistralai-Mistral-Nemo-Instruct-2407",
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B",
    "llama-cpp-deepseek-r1",
    "openai-gpt-oss-120b",
    "MiniMax-M1",
    "upstage-Solar-Open-100B",
    "muse-glimmer",
    "google-gemma-4-31B-it",
    "google-gemma-4-31B-it-interleaved",
)


WORD = "QqWordqQ"
# What ends a turn only after calls.
ENDS = (
    *("<|call|>", "<|eom_id|>", "<|tool_response>", "<|eot_id|>", "</s>", "<turn|>\n", "<SPECIAL_12>\n\n"),
    "<｜hy_eos:opensource｜>",  # noqa: RUF001
    "<|close|>message<|sep|><|end_of_msg|>",
)


class Answer(NamedTuple):
    """What a template makes of an answer, and the prompt before it."""

    prompt: Prompt
    text: str


@cache
def chat_format(name: str) -> ChatFormat:
    return load_chat_format(published_source(name), tokenizer(), SANDBOX)


def answered(name: str, calls: list[tuple[str, str]], content: str = "", **fields: Any) -> Answer:
    """An answer with calls (name, arguments as JSON)."""
    formats = ChatFormats(chat_format(name), chat_format(name))
    talk: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}]
    answer: dict[str, Any] = {"role": "assistant", "content": content, "reasoning_content": "§ hm", **fields}
    if calls:
        answer["tool_calls"] = [
            {"id": f"call0000{i}", "type": "function", "function": {"name": tool, "arguments": arguments}}
            for i, (tool, arguments) in enumerate(calls)
        ]
    reasoning = ReasoningOptions(effort="high", enabled=True)

    def render(messages: list[dict[str, Any]], generate: bool) -> Prompt:
        chat = ChatInput(messages, TOOLS, reasoning=reasoning, add_generation_prompt=generate)
        return render_prompt(chat, formats, None)

    def ending(messages: list[dict[str, Any]]) -> str:
        text = render(messages, False).text
        return text.rpartition(WORD)[2] if WORD in text else ""

    before, whole = render(talk, True), render([*talk, answer], False).text
    start = common_length(before.text, whole)
    for end in (ending([*talk, {"role": "assistant", "content": WORD}]), *ENDS):
        whole = whole.removesuffix(end)
    markers = chat_format(name).markers
    text = whole[start:].removeprefix("<|CHATBOT_TOKEN|>").partition("<|START_OF_TURN_TOKEN|>")[0]
    text = text.removesuffix("<|END_OF_TURN_TOKEN|>")
    opened = before.opened and markers is not None and markers.end in text
    prompt = replace(before, pieces=(whole[:start],), opened=opened, tools=ToolOptions(TOOLS))
    return Answer(prompt, text)


def calls_in(answer: Answer, split: bool = False) -> tuple[list[tuple[str, Any]], str]:
    """The calls that the parser reads, and the content."""
    parser = answer.prompt.new_parser()
    assert parser is not None
    parts = read(parser, list(answer.text) if split else [answer.text])
    return [(call.name, exact_json.loads(call.arguments)) for call in parts.tools], parts.content


def test_every_template_has_an_expected_format():
    assert {path.stem for path in (models_dir() / "templates").glob("*.jinja")} == set(EXPECTED)


@pytest.mark.parametrize("name", SOME)
def test_call_format_and_reasoning_markers_are_as_expected(name):
    markers = chat_format(name).markers
    assert (chat_format(name).call_format.name, markers and markers.start) == EXPECTED[name]


def made_of(name: str, arguments: str) -> list[tuple[str, str]]:
    several = chat_format(name).capabilities.parallel_calls or not chat_format(name).capabilities.calls
    return [("get_weather", arguments), ("now", "{}"), ("get_weather", PLAIN)][: 3 if several else 1]


@pytest.mark.parametrize("name", SOME)
def test_calls_written_by_the_template_are_parsed_back(name):
    created = made_of(name, EVERYTHING if name not in UNESCAPED else EVERYTHING.replace("'", "*"))
    whole = chat_format(name).call_format.name in ("llama3", "generic")  # a call is the whole answer
    content = "" if whole or name in SILENT else "Let me see."
    answer = answered(name, created, content)
    calls, text = calls_in(answer)
    assert [(tool, exact_json.write(value)) for tool, value in calls] == [
        (tool, exact_json.write(exact_json.loads(arguments))) for tool, arguments in created
    ]
    assert text.strip() == content
    assert calls_in(answer, split=True) == (calls, text)


@pytest.mark.parametrize("control", [True, False], ids=["tokens", "text"])
@pytest.mark.parametrize("name", every(8, [name for name in ALL if name not in OTHER_LAYOUT]))
def test_grammar_allows_calls_the_template_writes(name, control):
    call_format = chat_format(name).call_format
    terminals = GrammarTerminals(MARKER_IDS if control else {})
    some = made_of(name, PLAIN), [("now", "{}")], [("get_weather", '{"city": "x"}')]
    for calls in some if name in PYTHON else (*some, [("get_weather", NESTED)]):
        written = answered(name, calls)
        for options in (ToolOptions(TOOLS, required=True), ToolOptions(TOOLS)):
            grammar = call_format.grammar(options, terminals)
            if grammar is None:
                continue
            text = after_reasoning(written).removeprefix(BEFORE.get(name, ""))
            assert matches(with_checked_schemas(grammar).text, text, control) == (True, True), text


def after_reasoning(answer: Answer) -> str:
    """What a grammar is for."""
    markers = answer.prompt.reasoning_markers
    if markers is None or markers.end not in answer.text:
        return answer.text.rstrip()
    return answer.text.partition(markers.end)[2].rstrip()


@pytest.mark.parametrize(
    ("name", "options", "shown"),
    [
        ("tencent-Hy3", {}, "reasoning_effort:no_think"),
        ("tencent-Hy3", {"enabled": True}, "reasoning_effort:high"),
        ("tencent-Hy3", {"effort": "low"}, "reasoning_effort:low"),
        ("tencent-Hy3", {"effort": "medium"}, "reasoning_effort:high"),
        ("Kimi-K3", {"effort": "medium"}, "thinking_effort=high"),
        ("Kimi-K3", {"effort": "minimal"}, "thinking_effort=low"),
        ("Kimi-K3", {"enabled": False}, "<|open|>response<|sep|>"),
        ("MiniMax-M3", {"enabled": False}, "thinking mode: disabled"),
        ("MiniMax-M3", {"enabled": True}, "thinking mode: enabled"),
        ("ByteDance-Seed-OSS", {"budget": 512}, "512"),
        ("upstage-Solar-Open-100B", {"effort": "low"}, "<|think|><|end|>"),
        ("muse-glimmer", {"effort": "low"}, "Reasoning strength: low"),
        ("GLM-4.6", {"enabled": False}, "<think></think>"),
        ("google-gemma-4-31B-it", {"enabled": False}, "<|channel>thought\n<channel|>"),
    ],
)
def test_reasoning_options_change_the_prompt(name, options, shown):
    chat = ChatInput([{"role": "user", "content": "Hi"}], reasoning=ReasoningOptions(**options))
    prompt = render_prompt(chat, ChatFormats(chat_format(name), chat_format(name)), None)
    assert shown in prompt.text
    other_effort = options.get("effort") in ("medium", "minimal")
    assert any("reasoning effort" in warning for warning in prompt.warnings) == other_effort


# Whose templates drop reasoning of earlier turns, also of the last.
FORGETFUL = (
    *("Apertus-8B-Instruct", "HuggingFaceTB-SmolLM3-3B", "LFM2.5-Instruct", "NVIDIA-Nemotron-Nano-v2"),
    *("Qwen-QwQ-32B", "deepseek-ai-DeepSeek-R1-Distill-Llama-8B", "llama-cpp-deepseek-r1"),
    *("deepseek-ai-DeepSeek-R1-Distill-Qwen-32B", "deepseek-ai-DeepSeek-V3.1", "llama-cpp-rwkv-world"),
    *("ibm-granite-granite-3.3-2B-Instruct", "unsloth-Apriel-1.5"),
)


@pytest.mark.parametrize("name", every(4, [name for name in ALL if EXPECTED[name][1]]))
def test_reasoning_written_by_the_template_is_parsed_back(name):
    answer = answered(name, [("now", "{}")], reasoning_content="§ I think so.")
    if name in FORGETFUL:
        assert "I think so" not in answer.text
        return
    parser = answer.prompt.new_parser()
    assert parser is not None
    parts = read(parser, [answer.text])
    assert (parts.reasoning, [call.name for call in parts.tools]) == ("§ I think so.", ["now"])
