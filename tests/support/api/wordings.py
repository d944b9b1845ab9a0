"""What each generating route calls things: so that a test of what all must have in common is written once."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, NamedTuple

import httpx
from httpx._decoders import LineDecoder, TextDecoder
from openai._streaming import SSEDecoder

Json = dict[str, Any]


class Usage(NamedTuple):
    prompt: int
    cached: int
    completion: int


class Answer(NamedTuple):
    """An answer in words of no API."""

    text: str
    finish: str  # "stop" or "length"
    usage: Usage


class Wording(ABC):
    path: str
    limit = "max_tokens"
    stop = "stop"
    asks_for_usage = False  # of a stream
    generates_for_nothing = True  # also for an empty prompt

    @abstractmethod
    def prompt(self, text: str) -> Json:
        """The fields that give the model this text and perhaps what a template adds."""

    @abstractmethod
    def whole(self, answer: Json) -> Answer:
        """Of a body."""

    @abstractmethod
    def streamed(self, events: list[Json]) -> Answer:
        """Of the events of a stream."""

    def body(self, text: str, limit: int | None = None, **fields: Any) -> Json:
        body = {**self.prompt(text), **fields}
        if limit is not None:
            body[self.limit] = limit
        if body.get("stream") and self.asks_for_usage:
            body["stream_options"] = {"include_usage": True}
        return body

    def read(self, response: httpx.Response) -> Answer:
        assert response.status_code == 200, response.text
        if response.headers["content-type"] == "application/json":
            return self.whole(response.json())
        return self.streamed(self.events([response.content]))

    def events(self, parts: Iterable[bytes]) -> list[Json]:
        """Of a stream, as an official client takes it apart."""
        return events_of(parts)


def events_of(parts: Iterable[bytes]) -> list[Json]:
    """The events of a stream, as the official client takes it apart."""
    return [
        json.loads(event.data) for event in SSEDecoder().iter_bytes(iter(parts)) if event.data != "[DONE]"
    ]


def _usage(usage: Json) -> Usage:
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    return Usage(usage["prompt_tokens"], cached, usage["completion_tokens"])


class Completions(Wording):
    path = "/v1/completions"
    asks_for_usage = True

    def prompt(self, text: str) -> Json:
        return {"prompt": text}

    def whole(self, answer: Json) -> Answer:
        (choice,) = answer["choices"]
        return Answer(self.text(choice), choice["finish_reason"], _usage(answer["usage"]))

    def streamed(self, events: list[Json]) -> Answer:
        choices = [choice for event in events for choice in event["choices"]]
        text = "".join(self.text(choice) for choice in choices)
        assert [choice["finish_reason"] for choice in choices[:-1]] == [None] * (len(choices) - 1)
        return Answer(text, choices[-1]["finish_reason"], _usage(events[-1]["usage"]))

    def text(self, choice: Json) -> str:
        content: str = choice["text"]
        return content


class Chat(Completions):
    path = "/v1/chat/completions"

    def prompt(self, text: str) -> Json:
        return {"messages": [{"role": "user", "content": text}]}

    def text(self, choice: Json) -> str:
        message = choice["message"] if "message" in choice else choice["delta"]
        return message.get("content") or ""


class Completion(Wording):
    path = "/completion"
    limit = "n_predict"

    def prompt(self, text: str) -> Json:
        return {"prompt": text}

    def whole(self, answer: Json) -> Answer:
        finish = "length" if answer["stop_type"] == "limit" else "stop"
        cached = answer["timings"]["cached_n"]
        usage = Usage(answer["tokens_evaluated"], cached, answer["tokens_predicted"])
        return Answer(answer["content"], finish, usage)

    def streamed(self, events: list[Json]) -> Answer:
        assert [event["stop"] for event in events] == [False] * (len(events) - 1) + [True]
        return self.whole(events[-1])._replace(text="".join(event["content"] for event in events))


class Infill(Completion):
    path = "/infill"

    def prompt(self, text: str) -> Json:
        return {"input_prefix": text, "input_suffix": " end"}


class Responses(Wording):
    path = "/v1/responses"
    limit = "max_output_tokens"

    def prompt(self, text: str) -> Json:
        return {"input": text}

    def whole(self, answer: Json) -> Answer:
        text = "".join(part["text"] for item in answer["output"] for part in item["content"])
        used = answer["usage"]
        assert used["total_tokens"] == used["input_tokens"] + used["output_tokens"]
        cached = used["input_tokens_details"]["cached_tokens"]
        finish = "stop" if answer["status"] == "completed" else answer["incomplete_details"]["reason"]
        finish = "length" if finish == "max_output_tokens" else finish
        return Answer(text, finish, Usage(used["input_tokens"], cached, used["output_tokens"]))

    def streamed(self, events: list[Json]) -> Answer:
        text = "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta")
        reply = self.whole(events[-1]["response"])
        assert reply.text == text
        return reply


class Messages(Wording):
    path = "/v1/messages"
    stop = "stop_sequences"

    def prompt(self, text: str) -> Json:
        return {"messages": [{"role": "user", "content": text}], "max_tokens": 10_000}

    def whole(self, answer: Json) -> Answer:
        text = "".join(block["text"] for block in answer["content"])
        return Answer(text, *self._end(answer["stop_reason"], answer["usage"]))

    def streamed(self, events: list[Json]) -> Answer:
        deltas = [e["delta"] for e in events if e["type"] == "content_block_delta"]
        (end,) = (event for event in events if event["type"] == "message_delta")
        text = "".join(delta["text"] for delta in deltas)
        return Answer(text, *self._end(end["delta"]["stop_reason"], end["usage"]))

    @staticmethod
    def _end(reason: str, used: Json) -> tuple[str, Usage]:
        cached = used["cache_read_input_tokens"]
        usage = Usage(used["input_tokens"] + cached, cached, used["output_tokens"])
        return ("length" if reason in ("max_tokens", "model_context_window_exceeded") else "stop"), usage


class OllamaGenerate(Wording):
    path = "/api/generate"
    limit = "num_predict"
    generates_for_nothing = False

    def prompt(self, text: str) -> Json:
        return {"model": "stories", "prompt": text, "stream": False}

    def body(self, text: str, limit: int | None = None, **fields: Any) -> Json:
        """Whatever says how to generate is in `options`."""
        beside = {name: fields.pop(name) for name in ("stream",) if name in fields}
        options = fields if limit is None else {**fields, self.limit: limit}
        return {**super().body(text, **beside), "options": options}

    def events(self, parts: Iterable[bytes]) -> list[Json]:
        """Lines as httpx finds them, by which the official client reads."""
        lines = LineDecoder()
        texts = TextDecoder()
        actual = [line for part in parts for line in lines.decode(texts.decode(part))]
        return [json.loads(line) for line in actual + lines.decode(texts.flush()) + lines.flush()]

    def whole(self, answer: Json) -> Answer:
        assert answer["done"] is True
        usage = Usage(answer["prompt_eval_count"], answer["timings"]["cached_n"], answer["eval_count"])
        return Answer(self.text(answer), answer["done_reason"], usage)

    def streamed(self, events: list[Json]) -> Answer:
        assert [event["done"] for event in events] == [False] * (len(events) - 1) + [True]
        assert self.text(events[-1]) == ""
        return self.whole(events[-1])._replace(text="".join(map(self.text, events)))

    def text(self, answer: Json) -> str:
        content: str = answer["response"]
        return content


class OllamaChat(OllamaGenerate):
    path = "/api/chat"
    generates_for_nothing = True

    def prompt(self, text: str) -> Json:
        return {"model": "stories", "messages": [{"role": "user", "content": text}], "stream": False}

    def text(self, answer: Json) -> str:
        message = answer["message"]
        assert message["role"] == "assistant"
        content: str = message["content"]
        return content


WORDINGS: list[Wording] = [
    Completions(),
    Chat(),
    Completion(),
    Infill(),
    Responses(),
    Messages(),
    OllamaGenerate(),
    OllamaChat(),
]
