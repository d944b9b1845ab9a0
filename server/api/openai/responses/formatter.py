"""Formats a job as a response: its output items, and the events of a stream."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from server.api.common.replies.content_blocks import Block, BlockChange, Blocks, Kind, named_event
from server.api.common.replies.errors import ERRORS
from server.api.common.replies.logprobs import chat_logprobs, token_texts
from server.api.common.replies.timings import prompt_progress, timings_so_far
from server.api.openai.responses.event_log import EventLog
from server.api.openai.responses.parser import Conversation
from server.api.openai.responses.store import ResponseStore, StoredContent, sealed
from server.api.openai.responses.tools import FUNCTIONS, PREFIXES, CallForm, Item
from server.chat.output import OutputDelta, PromptProgress, ShownToken
from server.errors import ApiError
from server.generation.job import Job
from server.generation.output_processor import OutputSequence, SequenceEnd, SequenceOutput
from server.http.sse import JobFormatter

_PREFIXES: dict[Kind, str] = {"reasoning": "rs_", "text": "msg_", "call": "fc_"}
_PARTS = {"text": "output_text", "reasoning": "reasoning_text"}


class ResponseFormatter(JobFormatter):
    """echo: fields of the request that the response repeats. store: receives the response; None: it is not
    stored. seals: reasoning items have `encrypted_content`.
    """

    errors = ERRORS

    def __init__(
        self,
        job: Job,
        conversation: Conversation,
        echo: dict[str, Any],
        store: ResponseStore[ResponseFormatter] | None = None,
        seals: bool = False,
    ) -> None:
        self.job, self.blocks = job, Blocks(_PREFIXES)
        self.conversation, self.echo, self.store, self.seals = conversation, echo, store, seals
        self.owner = job.context.owner
        self.task: asyncio.Task[None] | None = None  # that generates it while no client waits
        self.log = EventLog() if self.in_background and job.options.stream else None
        self._timings: dict[str, Any] = {}  # so far, for every delta
        self._sequence = 0
        self._started = False

    # --- events

    def numbered(self, kind: str, **fields: Any) -> bytes:
        event = named_event(kind, sequence_number=self._sequence, **fields)
        self._sequence += 1
        if self.log is not None:
            self.log.add(event)
        return event

    def queue(self) -> None:
        """Log the first events of a background response."""
        response = self.response("queued", **self.job.context.with_warnings({}))
        self.numbered("response.created", response=response)
        self.numbered("response.queued", response=response)

    def start(self, sequence: OutputSequence) -> bytes:
        self._started = True
        response = self.response("in_progress")
        created = b"" if self._sequence else self.numbered("response.created", response=response)
        return created + self.numbered("response.in_progress", response=response)

    def progress(self, sequence: OutputSequence, progress: PromptProgress) -> bytes:
        fields = prompt_progress(progress, sequence, self.job.options.timings_per_token)
        return self.numbered("response.in_progress", response=self.response("in_progress"), **fields)

    def delta(self, sequence: OutputSequence, delta: OutputDelta) -> bytes:
        self._timings = timings_so_far(sequence) if self.job.options.timings_per_token else {}
        return b"".join(map(self._events, self.blocks.feed(delta)))

    def finish(self, sequence: OutputSequence, last: bool) -> bytes:
        return b"".join(map(self._events, self.blocks.finish(sequence.end)))

    def collect(self, sequence: OutputSequence, delta: OutputDelta) -> None:
        self.blocks.collect(sequence, delta)

    def _events(self, change: BlockChange) -> bytes:
        if change.kind == "opened":
            return self._opened(change.block)
        return self._closed(change.block) if change.kind == "closed" else self._grown(change)

    def _opened(self, block: Block) -> bytes:
        if block.call is not None and self._form(block.call.name).kind in FUNCTIONS:
            return b""
        at = {"output_index": block.index}
        item = self.item(block, "in_progress", whole=False)
        data = self.numbered("response.output_item.added", **at, item=item)
        if block.kind == "call":
            return data
        part = self._part(block, whole=False)
        return data + self.numbered("response.content_part.added", **self._at(block), part=part)

    def _grown(self, change: BlockChange) -> bytes:
        block, text = change.block, change.text
        if block.call is not None:
            if self._form(block.call.name).kind != "function_call":
                return b""  # shown when the whole of it can be read
            at = {"item_id": block.id, "output_index": block.index}
            return self.numbered("response.function_call_arguments.delta", **at, delta=text, **self._timings)
        at = {**self._at(block), "delta": text, **self._timings}
        if block.kind == "reasoning":
            return self.numbered("response.reasoning_text.delta", **at)
        return self.numbered("response.output_text.delta", **at, logprobs=self._logprobs(change.tokens))

    def _closed(self, block: Block) -> bytes:
        item = self.item(block, self._state_of(block))
        if block.call is not None:
            data = self._closed_call(block, item)
        else:
            part = self._part(block)
            extra = {"logprobs": part["logprobs"]} if block.kind == "text" else {}
            kind = f"response.{_PARTS[block.kind]}.done"
            data = self.numbered(kind, **self._at(block), text=part["text"], **extra)
            data += self.numbered("response.content_part.done", **self._at(block), part=part)
        return data + self.numbered("response.output_item.done", output_index=block.index, item=item)

    def _closed_call(self, block: Block, item: Item) -> bytes:
        at = {"item_id": item["id"], "output_index": block.index}
        if block.call is not None and self._form(block.call.name).kind in FUNCTIONS:
            empty_item = {**item, "status": "in_progress"}
            return self.numbered("response.output_item.added", output_index=block.index, item=empty_item)
        if item["type"] == "function_call":
            call = {"name": item["name"], "arguments": item["arguments"]}
            return self.numbered("response.function_call_arguments.done", **at, **call)
        name, text = "response.custom_tool_call_input", item["input"]
        return self.numbered(f"{name}.delta", **at, delta=text) + self.numbered(
            f"{name}.done", **at, input=text
        )

    def _form(self, name: str) -> CallForm:
        # Without a constraint a model may call a function that is not there.
        return self.conversation.tools.forms.get(name) or CallForm("function_call", name)

    def end(self) -> bytes:
        response = self.whole(())
        self.keep(response)
        kind, beside = f"response.{response['status']}", {}
        if self.job.options.timings_per_token or self.job.options.report_progress:
            # llama-server's clients, who ask for this, know no other end and expect the timings beside it.
            kind, beside = "response.completed", {"timings": response["timings"]}
        return self.numbered(kind, response=response, **beside)

    def error(self, error: ApiError) -> bytes:
        start = b"" if self._started else self.start(self.job.sequences[0])
        fields = {"code": error.code, "message": error.message, "param": error.param}
        status = "cancelled" if error.code == "request_cancelled" else "failed"
        failure = {"code": "server_error", "message": error.message}
        response = self.response(status, error=failure, store=self.in_background)
        return start + self.numbered("error", **fields) + self.numbered("response.failed", response=response)

    # --- the response

    @property
    def in_background(self) -> bool:
        return bool(self.echo["background"])

    @property
    def status(self) -> str:
        """The status of a response that has not ended."""
        sequence = self.job.sequences[0]
        runs = sequence.first_at or sequence.processed is not None
        return "queued" if self.in_background and not runs else "in_progress"

    @property
    def can_be_stored(self) -> bool:
        """Whether a response would fit in the store even before it has output."""
        content = StoredContent(msgspec.json.encode(self.response("queued")), b"[]", 0, ())
        return self.store is not None and self.store.fits(content)

    def cut(self, status: str, message: str | None = None) -> None:
        """Store a response that ended early. message: the reason of a failure."""
        self.blocks.end = SequenceEnd.LENGTH  # cuts its last item
        failed = status == "failed"
        error = {"code": "server_error", "message": message} if failed else None
        response = self.response(status, error=error, **self.job.context.with_warnings({}))
        if self.store is not None:
            self._put(self.store, response)

    def whole(self, results: Sequence[SequenceOutput]) -> dict[str, Any]:
        """The complete response."""
        status = "incomplete" if self.blocks.end is SequenceEnd.LENGTH else "completed"
        tail = self.job.context.with_warnings({"timings": self.job.timings()})
        response = self.response(status, usage=self._usage(), completed_at=time.time(), **tail)
        if status == "incomplete":
            response["incomplete_details"] = {"reason": "max_output_tokens"}
            response["completed_at"] = None
        if self.job.options.return_tokens:
            response["tokens"] = self.job.sequences[0].token_ids
        return response

    def keep(self, body: dict[str, Any]) -> None:
        self._add_to_conversation(body)
        if self.store is not None:
            self._put(self.store, body)

    def response(self, status: str, **fields: Any) -> dict[str, Any]:
        """The response as far as it has been generated."""
        job = self.job
        params = job.sequences[0].request.params
        return {
            "id": job.id,
            "object": "response",
            "created_at": job.created,
            "completed_at": None,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "model": job.model,
            "output": [self.item(block, self._state_of(block)) for block in self.blocks.all],
            "store": self.store is not None,
            "temperature": params.temperature,
            "top_p": params.top_p,
            "usage": None,
            **self.echo,
            **fields,
        }

    def item(self, block: Block, status: str, whole: bool = True) -> Item:
        """A block as an item. whole=False: the item as it is while empty."""
        if block.call is not None:
            form, text = self._form(block.call.name), block.text if whole else ""
            call = _call_item(form, block.call.id, text)
            if call is None:  # what the model wrote is not what the form must have
                form = CallForm("function_call", form.name)
                call = {"call_id": block.call.id, "name": form.name, "arguments": text}
            id = PREFIXES[form.kind] + block.id.removeprefix(_PREFIXES["call"])
            return {"id": id, "type": form.kind, "status": status, **call}
        content = [self._part(block)] if whole else []
        if block.kind == "reasoning":
            item: Item = {"id": block.id, "type": "reasoning", "status": status, "summary": []}
            extra = {"encrypted_content": sealed(block.text)} if self.seals and whole else {}
            return {**item, "content": content, **extra}
        return {
            "id": block.id,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": content,
        }

    def _part(self, block: Block, whole: bool = True) -> dict[str, Any]:
        part: dict[str, Any] = {"type": _PARTS[block.kind], "text": block.text if whole else ""}
        if block.kind == "text":
            part |= {"annotations": [], "logprobs": self._logprobs(block.tokens) if whole else []}
        return part

    def _logprobs(self, tokens: Sequence[ShownToken]) -> list[dict[str, Any]]:
        if self.job.options.logprobs is None or not tokens:
            return []
        texts = token_texts(self.job.engine.tokenizer)
        entries: list[dict[str, Any]] = chat_logprobs(texts, tokens)["content"]
        return entries

    def _at(self, block: Block) -> dict[str, Any]:
        return {"item_id": block.id, "output_index": block.index, "content_index": 0}

    def _state_of(self, block: Block) -> str:
        """The status of a block's item: a limit can cut off only the last block."""
        if block is not self.blocks.all[-1]:
            return "completed"
        if self.blocks.end is None:
            return "in_progress" if block is self.blocks.open else "completed"
        return "incomplete" if self.blocks.end is SequenceEnd.LENGTH else "completed"

    def _usage(self) -> dict[str, Any]:
        counts = self.job.counts()
        return {
            "input_tokens": counts.prompt,
            "input_tokens_details": {"cached_tokens": counts.cached, "cache_write_tokens": 0},
            "output_tokens": counts.generated,
            "output_tokens_details": {"reasoning_tokens": counts.reasoning},
            "total_tokens": counts.prompt + counts.generated,
        }

    def _add_to_conversation(self, response: dict[str, Any]) -> None:
        """Add the input and the output; meanwhile the conversation may have changed or been removed."""
        if self.conversation.home is None:
            return
        store, home = self.conversation.home
        new = self.conversation.items[len(self.conversation.items) - self.conversation.n_new :]
        if not store.holds(home):
            text = "conversation has no effect: it was deleted, or expired, before the response was complete"
        elif not store.update(home, [*new, *response["output"]]):
            text = "conversation has no effect: with this response it would be too large to store"
        else:
            return
        response["warnings"] = [*response.get("warnings", ()), text]

    def _put(self, store: ResponseStore[ResponseFormatter], response: dict[str, Any]) -> None:
        before = self.conversation.items
        items = [*before, *response["output"]]
        new = tuple(item["id"] for item in items[len(before) - self.conversation.n_new :])
        encode = msgspec.json.encode
        content = StoredContent(encode(response), encode(items), len(before), new)
        if self.log is not None:  # the last event, which follows, has the response as well
            n_bytes = self.log.size + len(content.response)
            with_events = replace(content, log=self.log, n_event_bytes=n_bytes)
            content = with_events if store.fits(with_events) else content
        if store.fits(content):
            store.put(self.job.id, self.owner, content)
            return
        if self.in_background:
            error = {"code": "server_error", "message": "the response is too large to store"}
            failed = {**response, "status": "failed", "output": [], "error": error}
            store.put(self.job.id, self.owner, StoredContent(encode(failed), b"[]", 0, ()))
            return
        response["store"] = False
        text = "store has no effect: the response is too large to store"
        response["warnings"] = [*response.get("warnings", ()), text]


def _call_item(form: CallForm, call_id: str, text: str) -> Item | None:
    """The call in the client's form. None: the form cannot represent what the model wrote."""
    named: Item = {"call_id": call_id, "name": form.name}
    if form.namespace is not None:
        named["namespace"] = form.namespace
    if form.kind == "function_call":
        return {**named, "arguments": text}
    value = _object(text)
    if form.kind == "custom_tool_call":
        written = value.get("input")
        return {**named, "input": written if isinstance(written, str) else text}
    body = _body(form.kind, value)
    return None if body is None else {"call_id": call_id, **body}


def _body(kind: str, value: Mapping[str, Any]) -> Item | None:
    if kind == "apply_patch_call":
        known = {"create_file": ("path", "diff"), "update_file": ("path", "diff"), "delete_file": ("path",)}
        names = known.get(str(value.get("type")))
        if names is None or not all(isinstance(value.get(name), str) for name in names):
            return None
        return {"operation": {name: value[name] for name in ("type", *names)}}
    name = "command" if kind == "local_shell_call" else "commands"
    words = value.get(name)
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        return None
    if kind == "shell_call":
        limits = {limit: value.get(limit) for limit in ("timeout_ms", "max_output_length")}
        return {"action": {name: words, **limits}, "environment": {"type": "local"}}
    known_fields = ("working_directory", "timeout_ms")
    extra = {field: value[field] for field in known_fields if value.get(field) is not None}
    return {"action": {"type": "exec", name: words, "env": {}, **extra}}


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
