"""What responses of /v1/chat/completions and /v1/completions have in common: head, usage, tail."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from server.api.common.replies.errors import ERRORS
from server.api.common.replies.native_completion import NativeCompletion
from server.chat.output import OutputDelta
from server.generation.formatter import JobFormatter
from server.generation.job import Job
from server.generation.output_processor import SequenceEnd, SequenceOutput
from server.version import version

DONE = b"data: [DONE]\n\n"
FINISH_REASONS = {
    SequenceEnd.STOP: "stop",
    SequenceEnd.LENGTH: "length",
    SequenceEnd.TOOL_CALLS: "tool_calls",
}
_FINGERPRINTED = ("architecture", "n_params", "size_bytes", "n_ctx", "kv_type", "placement", "attention")


class ChoiceFormatter(JobFormatter):
    """verbose: for `__verbose`; None: it is not requested."""

    errors = ERRORS

    def __init__(self, job: Job, object_name: str, verbose: NativeCompletion | None) -> None:
        self.job = job
        self.verbose = verbose
        self.include_usage = job.options.include_usage
        self.head = {
            "id": job.id,
            "object": object_name,
            "created": job.created,
            "model": job.model,
            "system_fingerprint": fingerprint(job.engine.info),
        }

    def chunk(self, choice: dict[str, Any], tail: dict[str, Any] | None = None) -> bytes:
        """One event of a stream."""
        usage = {"usage": None} if self.include_usage else {}
        return _event({**self.head, "choices": [choice], **usage, **(tail or {})})

    def end(self) -> bytes:
        if not self.include_usage:
            return DONE
        return _event({**self.head, "choices": [], "usage": self.usage(), **self.tail()}) + DONE

    def body(self, choices: list[dict[str, Any]], results: Sequence[SequenceOutput]) -> dict[str, Any]:
        """A whole response."""
        return {**self.head, "choices": choices, "usage": self.usage(), **self.tail(results)}

    def usage(self) -> dict[str, Any]:
        counts = self.job.counts()
        return {
            "prompt_tokens": counts.prompt,
            "completion_tokens": counts.generated,
            "total_tokens": counts.prompt + counts.generated,
            "prompt_tokens_details": {"cached_tokens": counts.cached},
            "completion_tokens_details": {"reasoning_tokens": counts.reasoning},
        }

    def tail(self, results: Sequence[SequenceOutput] = ()) -> dict[str, Any]:
        """What a whole response, or the last chunk of a stream (no `results`), has besides the choices."""
        job = self.job
        fields: dict[str, Any] = {"timings": job.timings()}
        if self.verbose is not None:
            output = results[0][1] if results else OutputDelta()
            fields["__verbose"] = self.verbose.result(job.sequences[0], output.text, output.tokens)
        if job.context.warnings:
            fields["warnings"] = job.context.warnings
        return fields


def _event(value: Any) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def fingerprint(info: Mapping[str, Any] | None) -> str:
    """`system_fingerprint`: where it differs, the same seed may give another text.

    A hash of the version and of a model's weights, cache and placement.
    """
    values = [version(), *((info or {}).get(name) for name in _FINGERPRINTED)]
    return "b" + hashlib.sha256(msgspec.json.encode(values)).hexdigest()[:10]
