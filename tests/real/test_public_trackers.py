"""Situations that broke other servers, from their public trackers, on a real model.

Each test names the report: PROJECT NUMBER. Its docstring says what came out there.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.api.http import user
from support.server_process import ServerProcess

CHAT = "/v1/chat/completions"
FRANCE = user("What is the capital of France? One word.")
EMOJI = "(🎉|🚀|👩‍👩‍👧‍👦|안녕){4}"
LONG_PROMPT = "Once upon a time there was a small dog who liked to run. " * 110  # about 1,500 tokens


@pytest.fixture(scope="module")
def server(smollm2: Path) -> Iterator[ServerProcess]:
    arguments = ("-m", f"smol={smollm2}", "--parallel", "1", "--context-size", "2048", "--threads", "1")
    with ServerProcess(*arguments) as process:
        yield process


@pytest.fixture
def http(server: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=120) as client:
        yield client


def reply(http: httpx.Client, path: str = CHAT, **body: Any) -> dict[str, Any]:
    response = http.post(path, json={"temperature": 0, "max_tokens": 32, **body})
    assert response.status_code == 200, response.text
    return response.json()


def error(http: httpx.Client, path: str = CHAT, **body: Any) -> dict[str, Any]:
    response = http.post(path, json={"temperature": 0, "max_tokens": 32, **body})
    assert response.status_code == 400, response.text
    return response.json()["error"]


def message(http: httpx.Client, **body: Any) -> dict[str, Any]:
    return reply(http, **body)["choices"][0]["message"]


def regex(pattern: str) -> dict[str, Any]:
    return {"response_format": {"type": "regex", "pattern": pattern}}


def schema(value: dict[str, Any]) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": value}}}


def deltas(http: httpx.Client, **body: Any) -> list[str]:
    body = {"temperature": 0, "max_tokens": 200, **body, "stream": True}
    with http.stream("POST", CHAT, json=body) as response:
        events = [line[6:] for line in response.iter_lines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    return [c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"]]


def running(http: httpx.Client) -> int:
    return len(http.get("/v1/requests").json()["data"])


def steps(http: httpx.Client) -> int:
    """Of the engine so far; one for each token that is decoded alone."""
    match = re.search(r"^ggserve_steps_total\S* (\S+)$", http.get("/metrics").text, re.MULTILINE)
    return int(float(match[1]))


def wait_until_idle(http: httpx.Client) -> None:
    end = time.monotonic() + 30
    while running(http):
        assert time.monotonic() < end, http.get("/v1/requests").text
        time.sleep(0.02)


def test_emoji_in_a_stream_are_never_cut(http: httpx.Client) -> None:
    """ik_llama.cpp 780, llama.cpp 4036, mlx-vlm 1076: halves of characters, or U+FFFD, in single chunks."""
    fields = {
        "messages": user("Repeat: 🎉🚀👩‍👩‍👧‍👦"),
        **regex(EMOJI),
        "seed": 3,
        "temperature": 1,
    }
    parts = deltas(http, **fields)
    assert all("\ufffd" not in part for part in parts)
    assert re.fullmatch(EMOJI, "".join(parts))
    assert "".join(parts) == message(http, **fields, max_tokens=200)["content"]


def test_very_hot_sampling_gives_valid_text(http: httpx.Client) -> None:
    """llama.cpp 11738: temperature far above 1 ended in invalid UTF-8 and a dead stream."""
    parts = deltas(http, messages=user("hi"), temperature=2, top_k=0, top_p=1, min_p=0, seed=11)
    assert len("".join(parts)) > 20


def test_a_client_that_disconnects_frees_its_slot(http: httpx.Client) -> None:
    """llama.cpp 24496: the slot went on generating for a client that was gone."""
    body = {"messages": user("Tell me a long story"), "stream": True, "max_tokens": 1500, "ignore_eos": True}
    before = steps(http)
    with http.stream("POST", CHAT, json=body) as response:
        lines = response.iter_lines()
        next(lines)
        assert running(http) == 1
    wait_until_idle(http)
    assert message(http, messages=user("Say hi"))["content"]  # after what the slot did before
    assert 0 < steps(http) - before < 1000  # the whole story takes 1,500


def test_a_client_that_disconnects_while_its_prompt_is_computed_frees_its_slot(
    http: httpx.Client, server: ServerProcess
) -> None:
    """ik_llama.cpp 1020: the whole prompt was still computed."""
    body = {"prompt": LONG_PROMPT, "max_tokens": 1, "batch_size": 8}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(server.url + "/v1/completions", json=body, timeout=httpx.Timeout(10, read=0.3))
    wait_until_idle(http)
    assert reply(http, "/v1/completions", **body)["timings"]["cached_n"] < 1000  # what was computed is kept


def test_a_queued_client_that_disconnects_harms_nobody(http: httpx.Client, server: ServerProcess) -> None:
    """ik_llama.cpp 1929: the one behind it got its answer, or none."""
    body = {"messages": user("Tell me a long story"), "stream": True, "max_tokens": 200, "ignore_eos": True}
    with http.stream("POST", CHAT, json=body) as response:
        lines = response.iter_lines()
        next(lines)
        with pytest.raises(httpx.ReadTimeout):  # waits for the one slot
            httpx.post(server.url + CHAT, json=body, timeout=httpx.Timeout(10, read=0.3))
        answers: list[dict[str, Any]] = []
        behind = {"messages": FRANCE, "temperature": 0, "max_tokens": 16}
        thread = threading.Thread(
            target=lambda: answers.append(httpx.post(server.url + CHAT, json=behind, timeout=120).json())
        )
        thread.start()
        assert [line for line in lines if line][-1] == "data: [DONE]"
    thread.join(60)
    assert "Paris" in answers[0]["choices"][0]["message"]["content"]


def test_logit_bias_bans_forces_and_refuses(http: httpx.Client) -> None:
    """vLLM 16529, 5963, 1045: ids beyond the vocabulary killed the engine, or were ignored."""
    paris = http.post("/tokenize", json={"content": " Paris"}).json()["tokens"][0]
    assert "Paris" in message(http, messages=FRANCE)["content"]
    assert "Paris" not in message(http, messages=FRANCE, logit_bias={str(paris): -100})["content"]
    forced = message(http, messages=FRANCE, logit_bias={str(paris): 100}, max_tokens=3)["content"]
    assert forced == " Paris Paris Paris"
    for key in ("49152", "-1", "x", "1e3", "99999999999999999999"):
        assert "logit_bias" in error(http, messages=FRANCE, logit_bias={key: 1})["message"]
    assert message(http, messages=FRANCE)["content"]


def test_echo_with_log_probabilities_of_the_prompt(http: httpx.Client) -> None:
    """vLLM 10234, tenstorrent/vllm 343: max_tokens 0 with echo failed, or logprobs did not fit the tokens."""
    body = {"prompt": "The capital of France is Paris", "max_tokens": 0, "echo": True, "logprobs": 3}
    choice = reply(http, "/v1/completions", **body)["choices"][0]
    assert choice["text"] == body["prompt"]
    logprobs = choice["logprobs"]
    assert "".join(logprobs["tokens"]) == body["prompt"]
    assert logprobs["token_logprobs"][0] is None
    assert all(value <= 0 for value in logprobs["token_logprobs"][1:])
    assert logprobs["token_logprobs"][-1] > -3  # Paris is likely there
    assert logprobs["text_offset"] == [body["prompt"].index(t, i) for i, t in _offsets(logprobs["tokens"])]


def _offsets(tokens: list[str]) -> Iterator[tuple[int, str]]:
    start = 0
    for token in tokens:
        yield start, token
        start += len(token)


@pytest.mark.parametrize(
    "constraint",
    [
        regex(r"(?=a)b"),
        regex(r"(a)\1"),
        {"grammar": 'root ::= "a" missing'},
        {"grammar": "root ::= root"},
        schema({"$ref": "#/no"}),
        schema({"type": "string", "pattern": "(?<=x)y"}),
    ],
)
def test_a_constraint_that_cannot_be_enforced_is_refused_and_never_dropped(
    http: httpx.Client, constraint: dict[str, Any]
) -> None:
    """llama.cpp 19051, 12252, 4492: the grammar failed to parse, the text came unconstrained or never."""
    assert error(http, messages=user("Say hi"), **constraint)["type"] == "invalid_request_error"


def call(http: httpx.Client, parameters: dict[str, Any] | None, **fields: Any) -> dict[str, Any]:
    """The arguments of a required call of a tool with these parameters."""
    function = {"name": "look", **({} if parameters is None else {"parameters": parameters})}
    body = {"messages": user("Look now."), "tools": [{"type": "function", "function": function}]}
    calls = message(http, **body, tool_choice="required", max_tokens=300, **fields)["tool_calls"]
    assert calls[0]["function"]["name"] == "look"
    return json.loads(calls[0]["function"]["arguments"])


@pytest.mark.parametrize(
    "parameters", [None, {}, {"type": "object"}, {"type": "object", "properties": {}, "required": []}]
)
def test_a_tool_without_parameters_is_called_with_an_empty_object(
    http: httpx.Client, parameters: dict[str, Any] | None
) -> None:
    """ollama-ai-provider-v2 10: "" instead of {}; a small model rambles where anything is allowed."""
    assert call(http, parameters) == {}


def test_dates_of_tool_arguments_follow_their_pattern(http: httpx.Client) -> None:
    r"""hermes-agent 67349: `^\d{4}-\d{2}-\d{2}$` was sent to a server that took \d for the letter d."""
    pattern = r"^\d{4}-\d{2}-\d{2}$"
    schema = {
        "type": "object",
        "properties": {"day": {"type": "string", "pattern": pattern}},
        "required": ["day"],
    }
    assert re.fullmatch(pattern, call(http, schema)["day"])


def test_tool_descriptions_with_quotes_newlines_and_other_scripts_reach_the_prompt(
    http: httpx.Client,
) -> None:
    """llama.cpp 27619: a description with quotes broke the template's JSON."""
    description = 'Says "hi"\nto {{ user }} and {% raw %} 你好 \\ </tool_call>'
    tools = [
        {"type": "function", "function": {"name": "greet", "description": description, "parameters": {}}}
    ]
    prompt = http.post("/apply-template", json={"messages": user("x"), "tools": tools})
    assert prompt.status_code == 200, prompt.text
    assert json.dumps(description, ensure_ascii=False)[1:-1] in prompt.json()["prompt"]


def test_assistant_message_with_calls_and_null_content_is_accepted(http: httpx.Client) -> None:
    """open-webui 12441: null, "" or missing content beside tool_calls was a 400 or the text "None"."""
    calls = [{"id": "call_1", "type": "function", "function": {"name": "now", "arguments": "{}"}}]
    result = {"role": "tool", "tool_call_id": "call_1", "content": "noon"}
    prompts = set()
    for content in ({"content": None}, {"content": ""}, {}):
        turns = [*user("What time is it?"), {"role": "assistant", "tool_calls": calls, **content}, result]
        assert message(http, messages=turns)["content"]
        prompts.add(http.post("/apply-template", json={"messages": turns}).json()["prompt"])
    assert len(prompts) == 1
    assert "None" not in prompts.pop()


@pytest.mark.parametrize("stop", [None, [], "", [""], ["", "zebra"]])
def test_empty_stops_do_not_end_the_text_at_once(http: httpx.Client, stop: object) -> None:
    """flexeval 188, quarkus-langchain4j 1753: an empty stop string ended the text before its first token."""
    assert "Paris" in message(http, messages=FRANCE, stop=stop)["content"]


def test_a_stop_alongside_an_empty_one_ends_the_text(http: httpx.Client) -> None:
    assert message(http, messages=FRANCE, stop=["", " Paris"])["content"] == "The capital of France is"
