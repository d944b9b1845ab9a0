"""A job as a response: its items, and the events of its making."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from server.api.common.content_blocks import Block, BlockFormat, Kind
from server.api.common.logprobs import chat_logprobs
from server.api.common.timings import of_prompt, per_token
from server.api.openai.responses.items import Item
from server.http.sse import Answer, encode

if TYPE_CHECKING:
    from server.api.common.response_store import ResponseStore
    from server.errors import ApiError
    from server.generation.job import Job
    from server.generation.output_processor import Choice, Piece, Progress, Shown

_PARTS = {"text": "output_text", "reasoning": "reasoning_text"}


class ResponseFormat(BlockFormat):
    """`echo`: fields of the request that come back. `given`: the conversation's items, the last `n_new` new.

    kept: where the response is kept when it is there; None: nowhere.
    """

    prefixes: ClassVar[dict[Kind, str]] = {"reasoning": "rs_", "text": "msg_", "call": "fc_"}

    def __init__(
        self,
        job: Job,
        echo: dict[str, Any],
        given: Sequence[Item] = (),
        n_new: int = 0,
        *,
        logprobs: bool = False,
        return_tokens: bool = False,
        kept: ResponseStore | None = None,
        owner: bytes | None = None,
    ) -> None:
        super().__init__(job)
        self.echo, self.given, self.n_new = echo, given, n_new
        self.logprobs = logprobs
        self.kept, self.owner = kept, owner
        self.token_ids: list[int] | None = [] if return_tokens else None
        self._timings: dict[str, Any] = {}  # of this moment, for every delta
        self._sequence = 0
        self._begun = False

    # --- events

    def tell(self, kind: str, **fields: Any) -> bytes:
        number = self._sequence
        self._sequence += 1
        return self.event(kind, sequence_number=number, **fields)

    def first(self, choice: Choice) -> bytes:
        self._begun = True
        response = self.response("in_progress")
        return self.tell("response.created", response=response) + self.tell(
            "response.in_progress", response=response
        )

    def progress(self, choice: Choice, progress: Progress) -> bytes:
        told = of_prompt(progress, choice, self.job.timings_per_token)
        return self.tell("response.in_progress", response=self.response("in_progress"), **told)

    def delta(self, choice: Choice, piece: Piece) -> bytes:
        if self.token_ids is not None:
            self.token_ids += [token.id for token, _ in piece.tokens]
        self._timings = per_token(choice) if self.job.timings_per_token else {}
        return super().delta(choice, piece)

    def opened(self, block: Block) -> bytes:
        at = {"output_index": block.index}
        item = self.item(block, "in_progress", whole=False)
        data = self.tell("response.output_item.added", **at, item=item)
        if block.kind == "call":
            return data
        part = self._part(block, whole=False)
        return data + self.tell("response.content_part.added", **self._at(block), part=part)

    def grown(self, block: Block, text: str, tokens: Sequence[Shown]) -> bytes:
        logprobs = self._logprobs(tokens)
        block.logprobs += logprobs
        if not self.job.stream:
            return b""
        if block.kind == "call":
            at = {"item_id": block.id, "output_index": block.index}
            return self.tell("response.function_call_arguments.delta", **at, delta=text, **self._timings)
        at = {**self._at(block), "delta": text, **self._timings}
        if block.kind == "reasoning":
            return self.tell("response.reasoning_text.delta", **at)
        return self.tell("response.output_text.delta", **at, logprobs=logprobs)

    def closed(self, block: Block) -> bytes:
        if not self.job.stream:
            return b""
        item = self.item(block, self._state_of(block))
        if block.kind == "call":
            at = {"item_id": block.id, "output_index": block.index}
            told = {"name": item["name"], "arguments": item["arguments"]}
            data = self.tell("response.function_call_arguments.done", **at, **told)
        else:
            part = self._part(block)
            extra = {"logprobs": part["logprobs"]} if block.kind == "text" else {}
            kind = f"response.{_PARTS[block.kind]}.done"
            data = self.tell(kind, **self._at(block), text=part["text"], **extra)
            data += self.tell("response.content_part.done", **self._at(block), part=part)
        return data + self.tell("response.output_item.done", output_index=block.index, item=item)

    def end(self) -> bytes:
        response = self.whole(())
        kind, told = f"response.{response['status']}", {}
        if self.job.timings_per_token or self.job.choices[0].tell_progress:
            # llama-server's clients, who ask for this, know no other end, and look for the times beside it.
            kind, told = "response.completed", {"timings": response["timings"]}
        return self.tell(kind, response=response, **told)

    def error(self, error: ApiError) -> bytes:
        begun = b"" if self._begun else self.first(self.job.choices[0])
        fields = {"code": error.code, "message": error.message, "param": error.param}
        status = "cancelled" if error.code == "request_cancelled" else "failed"
        told = {"code": "server_error", "message": error.message}
        response = self.response(status, error=told, store=False)
        return begun + self.tell("error", **fields) + self.tell("response.failed", response=response)

    # --- the response

    def whole(self, answers: Sequence[Answer]) -> dict[str, Any]:
        """The response at its end, which is kept from now on."""
        status = "incomplete" if self.finished == "length" else "completed"
        response = self.response(status, usage=self._usage(), completed_at=time.time(), **self.job.tail())
        if status == "incomplete":
            response["incomplete_details"] = {"reason": "max_output_tokens"}
            response["completed_at"] = None
        if self.token_ids is not None:
            response["tokens"] = self.token_ids
        if self.kept is not None:
            self._keep(self.kept, response)
        return response

    def response(self, status: str, **fields: Any) -> dict[str, Any]:
        """As far as it is there."""
        job = self.job
        params = job.choices[0].request.params
        return {
            "id": job.id,
            "object": "response",
            "created_at": job.created,
            "completed_at": None,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "model": job.model,
            "output": [self.item(block, self._state_of(block)) for block in self.blocks],
            "store": self.kept is not None,
            "temperature": params.temperature,
            "top_p": params.top_p,
            "usage": None,
            **self.echo,
            **fields,
        }

    def item(self, block: Block, status: str, whole: bool = True) -> Item:
        """A block as an item. Without `whole` as it is before anything is in it."""
        if block.call is not None:
            item: Item = {"id": block.id, "type": "function_call", "status": status}
            text = block.text if whole else ""
            return {**item, "call_id": block.call.id, "name": block.call.name, "arguments": text}
        content = [self._part(block)] if whole else []
        if block.kind == "reasoning":
            return {"id": block.id, "type": "reasoning", "status": status, "summary": [], "content": content}
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
            part |= {"annotations": [], "logprobs": block.logprobs if whole else []}
        return part

    def _logprobs(self, tokens: Sequence[Shown]) -> list[dict[str, Any]]:
        if not self.logprobs or not tokens:
            return []
        found: list[dict[str, Any]] = chat_logprobs(self.job.facts.names, tokens)["content"]
        return found

    def _at(self, block: Block) -> dict[str, Any]:
        return {"item_id": block.id, "output_index": block.index, "content_index": 0}

    def _state_of(self, block: Block) -> str:
        """The last block is where the limit cuts."""
        if block is not self.blocks[-1]:
            return "completed"
        if self.finished is None:
            return "in_progress" if block is self._open else "completed"
        return "incomplete" if self.finished == "length" else "completed"

    def _usage(self) -> dict[str, Any]:
        usage = self.job.usage()
        return {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {**usage["prompt_tokens_details"], "cache_write_tokens": 0},
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": usage["completion_tokens_details"],
            "total_tokens": usage["total_tokens"],
        }

    def _keep(self, kept: ResponseStore, response: dict[str, Any]) -> None:
        items = [*self.given, *response["output"]]
        data, conversation = encode(response), encode(items)
        if not kept.fits(data, conversation):
            response["store"] = False
            text = "store has no effect: the response is too large to keep"
            response["warnings"] = [*response.get("warnings", ()), text]
            return
        new = [item["id"] for item in items[len(self.given) - self.n_new :]]
        kept.put(self.job.id, self.owner, data, conversation, len(self.given), new)
