"""A job in llama-server's own words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from engine.types import FinishReason
from server.api.common.timings import of_prompt, per_token, told
from server.api.llama_server.completion.settings import settings
from server.http.sse import Answer, Format, chunk

if TYPE_CHECKING:
    from server.api.common.logprobs import TokenNames
    from server.errors import ApiError
    from server.generation.job import Job
    from server.generation.output_processor import Choice, Piece, Progress, Shown


class NativeFormat(Format):
    """An event for each token; the last one of each choice has everything else. No [DONE].

    prompts: as the model saw them, by `prompt_index`; None: nobody asks for them.
    """

    def __init__(
        self,
        job: Job,
        prompts: Sequence[str] | None,
        *,
        return_tokens: bool = False,
        fields: Sequence[str] | None = None,
        stop: Sequence[str] = (),
        post_sampling_probs: bool = False,
    ) -> None:
        self.job, self.prompts, self.return_tokens = job, prompts, return_tokens
        self.fields, self.stop, self.post = fields, stop, post_sampling_probs
        self.probs = any(choice.request.params.logprobs is not None for choice in job.choices)
        self._sent = [0] * len(job.choices)  # characters

    def progress(self, choice: Choice, progress: Progress) -> bytes:
        return chunk(
            {**self._part(choice, "", []), **of_prompt(progress, choice, self.job.timings_per_token)}
        )

    def delta(self, choice: Choice, piece: Piece) -> bytes:
        base = self._sent[choice.index]
        self._sent[choice.index] += len(piece.text)
        tail = per_token(choice) if self.job.timings_per_token else {}
        starts = [0, *(max(0, start - base) for _, start in piece.tokens[1:]), len(piece.text)]
        data = b""
        for i, shown in enumerate(piece.tokens):
            part = self._part(choice, piece.text[starts[i] : starts[i + 1]], [shown.token.id])
            data += chunk({**part, **tail, **self._probabilities([shown])})
        if not piece.tokens:
            data = chunk({**self._part(choice, piece.text, []), **tail})
        return data

    def finish(self, choice: Choice, last: bool) -> bytes:
        return chunk(self._whole(choice, "", [], last))

    def end(self) -> bytes:
        return b""

    def error(self, error: ApiError) -> bytes:
        return chunk(error.body())

    def whole(self, answers: Sequence[Answer]) -> Any:
        last = len(answers) - 1
        found = [
            self._whole(answer.choice, answer.text, answer.shown, i == last)
            for i, answer in enumerate(answers)
        ]
        return found if last else found[0]

    def result(self, choice: Choice, answers: Sequence[Answer]) -> dict[str, Any]:
        """Of the first choice. In a stream, where there are no answers, without its text."""
        text, shown = (answers[0].text, answers[0].shown) if answers else ("", [])
        return self._whole(choice, text, shown, last=False)

    def _part(self, choice: Choice, content: str, tokens: list[int]) -> dict[str, Any]:
        return {
            "index": choice.index,
            "content": content,
            "tokens": tokens,
            "stop": False,
            "id_slot": slot_of(choice),
            "tokens_predicted": choice.n_generated,
            "tokens_evaluated": len(choice.request.prompt),
        }

    def _whole(self, choice: Choice, text: str, shown: Sequence[Shown], last: bool) -> dict[str, Any]:
        job, request = self.job, choice.request
        n_prompt, n_generated = len(request.prompt), choice.n_generated
        stop_type, word = self._stop(choice)
        full = choice.reason is FinishReason.LENGTH and n_prompt + n_generated >= job.engine.n_ctx
        found = self._part(choice, text, [s.token.id for s in shown] if self.return_tokens else []) | {
            "stop": True,
            "model": job.model,
            "generation_settings": settings(
                request.params,
                stop=self.stop,
                stream=job.stream,
                constraint=request.constraint,
                eog_ids=sorted(job.engine.tokenizer.eog_ids),
                timings_per_token=job.timings_per_token,
                post_sampling_probs=self.post,
            ),
            "prompt": self.prompts[choice.prompt_index] if self.prompts else "",
            "has_new_line": choice.has_new_line,
            "truncated": full,
            "stop_type": stop_type,
            "stopping_word": word,
            "tokens_cached": n_prompt + max(n_generated - 1, 0),
            "timings": told(choice.timings),
        }
        if shown:
            found |= self._probabilities(shown)
        if last and job.warnings:
            found["warnings"] = job.warnings
        return picked(found, self.fields) if self.fields else found

    def _stop(self, choice: Choice) -> tuple[str, str]:
        if choice.stop_word is not None:
            return "word", choice.stop_word
        if choice.reason is not FinishReason.STOP:
            return "limit", ""
        if choice.final_id is None or choice.final_id in self.job.engine.tokenizer.eog_ids:
            return "eos", ""
        return "word", self.job.engine.tokenizer.token_text(choice.final_id)

    def _probabilities(self, shown: Sequence[Shown]) -> dict[str, Any]:
        if not self.probs:
            return {}
        names = self.job.facts.names
        return {"completion_probabilities": [probability(names, token, self.post) for token, _ in shown]}


async def prompts_of(job: Job) -> list[str]:
    """Prompts as the model saw them: special tokens written out."""
    prompts = {choice.prompt_index: choice.request.prompt for choice in job.choices}
    decode = job.engine.tokenizer.decode
    return await job.state.in_thread(lambda: [decode(ids, skip_special=False) for ids in prompts.values()])


def slot_of(choice: Choice) -> int:
    """The number of the slot that it ran in."""
    slot = choice.request.slot
    return -1 if slot is None else slot


def probability(names: TokenNames, token: Any, post: bool) -> dict[str, Any]:
    """A token and the most likely ones at its place."""

    def entry(id: int, logprob: float | None) -> dict[str, Any]:
        found = names.entry(id, logprob)
        value = found.pop("logprob")
        return {"id": id, **found, **({"prob": math.exp(value)} if post else {"logprob": value})}

    top = [entry(id, logprob) for id, logprob in token.top or ()]
    return {**entry(token.id, token.logprob), "top_probs" if post else "top_logprobs": top}


def picked(reply: Mapping[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    """`response_fields`: the values at these paths, by the paths as they were given."""
    found: dict[str, Any] = {}
    for path in fields:
        value: Any = reply
        for key in path.split("/"):
            if not isinstance(value, Mapping) or key not in value:
                break
            value = value[key]
        else:
            found[path] = value
    return found
