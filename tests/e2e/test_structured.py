"""Structured output through the whole: server and engine processes, the bundled model, OpenAI's client."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from jsonschema import Draft202012Validator

from support.server_process import ServerProcess

PROMPT = "Once upon a time"
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "maxItems": 3},
        "home": {
            "type": "object",
            "properties": {"street": {"type": "string", "pattern": "^[A-Z][a-z]{1,8} [0-9]{1,3}$"}},
            "required": ["street"],
            "additionalProperties": False,
        },
    },
    "required": ["name", "age", "tags", "home"],
    "additionalProperties": False,
}
LIST = 'root ::= item{2,4}\nitem ::= "- " [a-z ]{3,20} "\\n"'
JSON_FORMAT = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON, "strict": True}}
# What is asked for, and what the whole text then is.
FORMATS: list[tuple[dict[str, Any], str]] = [
    (
        {"response_format": {"type": "regex", "pattern": "[A-Z][a-z]{2,9}, [0-9]+ years"}},
        "[A-Z][a-z]{2,9}, [0-9]+ years",
    ),
    ({"response_format": {"type": "choice", "choices": ["yes", "no", "maybe so"]}}, "yes|no|maybe so"),
    ({"grammar": LIST}, "(- [a-z ]{3,20}\n){2,4}"),
    ({"response_format": {"type": "grammar", "grammar": LIST}}, "(- [a-z ]{3,20}\n){2,4}"),
    (
        {"response_format": {"type": "grammar", "syntax": "lark", "grammar": 'start: /[a-z]{4}/ "!"'}},
        "[a-z]{4}!",
    ),
    ({"json_schema": {"type": "integer", "minimum": 10, "maximum": 99}}, "[1-9][0-9]"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess("--threads", "1", "--parallel", "8") as process:
        yield process
        assert process.end() == 0


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0, timeout=120) as api:
        yield api


def ask(client: openai.OpenAI, seed: int, **extra: Any) -> Any:
    fields: dict[str, Any] = {"temperature": 1.0, "max_tokens": 250, **extra}
    return client.completions.create(model="stories", prompt=PROMPT, seed=seed, extra_body=fields)


def streamed(client: openai.OpenAI, seed: int, on_piece: Callable[[], object] = int, **extra: Any) -> str:
    fields: dict[str, Any] = {"temperature": 1.0, "max_tokens": 250, **extra}
    chunks = client.completions.create(
        model="stories", prompt=PROMPT, seed=seed, stream=True, extra_body=fields
    )
    text = ""
    for chunk in chunks:
        if chunk.choices:
            text += chunk.choices[0].text
            on_piece()
    return text


def test_json_is_always_valid(client: openai.OpenAI) -> None:
    validator = Draft202012Validator(PERSON)
    for seed in range(12):
        answer = ask(client, seed, response_format=JSON_FORMAT).choices[0]
        assert answer.finish_reason == "stop"
        validator.validate(json.loads(answer.text))


def test_same_new_schema_in_20_concurrent_requests_is_answered_20_times(client: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"batch": {"enum": [1, 2, 3]}}, "required": ["batch"]}
    with ThreadPoolExecutor(20) as threads:
        answers = threads.map(lambda seed: ask(client, seed, json_schema=schema), range(20))
        texts = [answer.choices[0].text for answer in answers]
    assert all(json.loads(text)["batch"] in (1, 2, 3) for text in texts)


def test_constrained_text_streamed_equals_whole(client: openai.OpenAI) -> None:
    for seed in range(3):
        for fields in ({"response_format": JSON_FORMAT}, FORMATS[0][0], FORMATS[2][0]):
            assert streamed(client, seed, **fields) == ask(client, seed, **fields).choices[0].text


def test_completion_with_each_constraint_matches_it(client: openai.OpenAI) -> None:
    for fields, pattern in FORMATS:
        for seed in range(3):
            answer = ask(client, seed, **fields).choices[0]
            assert answer.finish_reason == "stop", (fields, answer)
            assert re.fullmatch(pattern, answer.text), answer.text
            assert len(answer.text) > 1


def test_completion_with_json_object_is_an_object(client: openai.OpenAI) -> None:
    for seed in range(4):
        answer = ask(client, seed, response_format={"type": "json_object"}).choices[0]
        if answer.finish_reason == "stop":
            assert isinstance(json.loads(answer.text), dict)
        else:
            assert answer.text.startswith("{")


def test_chat_with_a_schema_matches_it(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="stories",
        messages=[{"role": "user", "content": "A person"}],
        response_format=JSON_FORMAT,  # type: ignore[arg-type]
        max_tokens=250,
        n=3,
        seed=1,
    )
    texts = [choice.message.content for choice in answer.choices]
    for text in texts:
        Draft202012Validator(PERSON).validate(json.loads(text or ""))
    assert len(set(texts)) > 1


def test_constrained_text_beside_other_requests_is_unchanged(client: openai.OpenAI) -> None:
    """Streams with constraints, each its own, beside streams without."""
    requests: list[dict[str, Any]] = [
        {},
        {"response_format": JSON_FORMAT},
        {},
        *(fields for fields, _ in FORMATS),
    ]
    alone = [ask(client, i, **fields).choices[0].text for i, fields in enumerate(requests)]
    with ThreadPoolExecutor(len(requests)) as threads:
        together = list(threads.map(lambda i: streamed(client, i, **requests[i]), range(len(requests))))
    assert together == alone


def test_a_restarted_engine_continues_in_the_middle_of_the_grammar(
    server: ServerProcess, client: openai.OpenAI
) -> None:
    long = {"type": "array", "items": PERSON, "minItems": 8}
    fields = {"json_schema": long, "max_tokens": 460}
    alone = ask(client, 5, **fields).choices[0].text
    pieces = threading.Semaphore(0)
    with ThreadPoolExecutor(1) as threads:
        future = threads.submit(streamed, client, 5, pieces.release, **fields)
        for _ in range(40):
            assert pieces.acquire(timeout=30)
        (pid,) = server.engine_pids()
        os.kill(pid, signal.SIGKILL)
        assert future.result() == alone
    server.wait_for("the engine process was killed by SIGKILL")


def test_unsatisfiable_constraint_ends_only_its_request(client: openai.OpenAI) -> None:
    grammar = 'root ::= "\\x01"+ "\\x02"'
    banned = list(range(256))  # the only tokens that have these characters
    with pytest.raises(openai.BadRequestError) as raised:
        ask(client, 0, grammar=grammar, stop_token_ids=banned, min_tokens=200)
    assert raised.value.code == "constraint_failed"
    assert "every token is banned" in str(raised.value)
    assert ask(client, 0).choices[0].text


def test_min_tokens_and_ignore_eos_extend_the_text_within_the_constraint(client: openai.OpenAI) -> None:
    answer = ask(client, 0, ignore_eos=True, min_tokens=50, json_schema={"const": "x"}).choices[0]
    assert (answer.text, answer.finish_reason) == ('"x"', "stop")


def test_log_probabilities_of_constrained_text_are_the_models(client: openai.OpenAI) -> None:
    fields = {"response_format": {"type": "choice", "choices": ["zq"]}, "logprobs": 1}
    answer = ask(client, 0, **fields).choices[0]
    assert answer.text == "zq"
    assert all(value < -1 for value in answer.logprobs.token_logprobs)


def test_invalid_constraint_is_reported(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        ask(client, 0, json_schema={"type": "nix"})
    assert raised.value.param == "json_schema"
    with pytest.raises(openai.BadRequestError) as raised:
        ask(client, 0, grammar="root ::= x")
    assert raised.value.param == "grammar"
