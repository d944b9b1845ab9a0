"""Perplexity of a text: e to the mean negative log-likelihood of its tokens.

Measured as in llama-perplexity: the text is cut into chunks of the context size, each of which is computed
separately, with its first token replaced by the beginning-of-sequence token if the model adds one. Only the
tokens of the second half count, so that each has at least half a context before it. Results are comparable
only for the same text, context size and tokenizer. LoRA adapters are used with the scales that they were
loaded with.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from engine.cache.cached_sequence import CachedSequence
from engine.config import default_adapters
from engine.errors import ConfigError, EngineError, ModelError
from engine.model.context import ModelContext
from engine.sampling.log_softmax import log_sum_exp, max_rows
from engine.scheduler.batch import BatchRunner, next_item

DEFAULT_CONTEXT = 512
MIN_CONTEXT = 8  # so that several tokens of a chunk count: the error needs two


class Estimate(NamedTuple):
    """The estimate after `n_chunks` chunks.

    n_scored: tokens that counted. nll: their mean negative log-likelihood, in nats. perplexity: e to the nll.
    error: one standard error of the perplexity, from the variance over tokens.
    """

    n_chunks: int
    n_scored: int
    nll: float
    perplexity: float
    error: float


def tokenize(model: ModelContext, text: str) -> list[int]:
    """The tokens of a text; the first is the beginning-of-sequence token if the model adds it."""
    tokenizer = model.tokenizer
    ids = tokenizer.encode(text, add_special=False)
    if tokenizer.add_bos and tokenizer.bos_id is not None:
        ids.insert(0, tokenizer.bos_id)
    return ids


def n_chunks(n_tokens: int, context_size: int = DEFAULT_CONTEXT) -> int:
    """The number of whole chunks in `n_tokens` tokens. Raises ConfigError for fewer than two."""
    if context_size < MIN_CONTEXT:
        raise ConfigError(f"the context size is {context_size}; perplexity needs at least {MIN_CONTEXT}")
    if n_tokens < 2 * context_size:
        raise ConfigError(
            f"the text has {n_tokens} tokens, but at least {2 * context_size} are needed, two chunks of "
            f"{context_size}; give a longer text or a smaller --context-size"
        )
    return n_tokens // context_size


def estimates(
    model: ModelContext,
    tokens: Sequence[int],
    *,
    context_size: int = DEFAULT_CONTEXT,
    n_batch: int = 512,
    chunks: int | None = None,
) -> Iterator[Estimate]:
    """The estimate after each chunk; the last one is the result.

    tokens: from `tokenize`. n_batch: most tokens computed together; clamped to the model's limit. chunks: how
    many to compute; None: all. Raises ConfigError for too short a text or parameters out of range,
    OutOfMemoryError if the cache has no room for a chunk, EngineError if logits are not finite.
    """
    available = n_chunks(len(tokens), context_size)
    if chunks is not None and chunks < 1:
        raise ConfigError(f"chunks is {chunks}; it must be at least 1")
    if n_batch < 1:
        raise ConfigError(f"n_batch is {n_batch}; it must be at least 1")
    if context_size > model.n_ctx:
        raise ConfigError(
            f"chunks of {context_size} tokens do not fit the context of {model.n_ctx} of the loaded model"
        )
    if not model.hp.causal:
        raise ModelError(f"a {model.gguf.arch} model predicts no next token, so it has no perplexity")
    runner, tokenizer, adapters = model.runner, model.tokenizer, default_adapters(model.params)
    bos = tokenizer.bos_id if tokenizer.add_bos else None
    n_batch = min(n_batch, model.max_batch_tokens)
    count, total, squares = 0, 0.0, 0.0
    for done in range(1, min(available, chunks or available) + 1):
        chunk = list(tokens[(done - 1) * context_size : done * context_size])
        if bos is not None:
            chunk[0] = bos
        sequence = CachedSequence(
            model.pool,
            None,
            chunk,
            original_context_length=runner.original_context_length,
            adapters=adapters,
        )
        model.prefix.make_room(context_size - 1)
        try:
            sequence.attach()
            for nll in _nlls(runner, sequence, context_size // 2, n_batch):
                count += 1
                total += nll
                squares += nll * nll
        finally:
            sequence.release(keep=False)
        if not math.isfinite(total):
            raise EngineError(
                f"the logits of chunk {done} are not finite numbers: the model file is damaged, or its "
                f"values are too large for this device"
            )
        yield _estimate(done, count, total, squares)


def _estimate(done: int, count: int, total: float, squares: float) -> Estimate:
    mean = total / count
    variance = max(0.0, squares / count - mean * mean)
    perplexity = math.exp(mean) if mean < 700 else math.inf
    return Estimate(done, count, mean, perplexity, perplexity * math.sqrt(variance / (count - 1)))


def _nlls(runner: BatchRunner, sequence: CachedSequence, first: int, n_batch: int) -> Iterator[float]:
    """-log p(tokens[i + 1] | tokens[: i + 1]) for i from `first` to the last but one, in nats.

    At most `n_batch` tokens are computed at a time; the last token is not, since nothing is predicted from
    it.
    """
    tokens, end = sequence.tokens, len(sequence.tokens) - 1
    most_outputs = max_rows(runner.n_vocab)
    while (begin := sequence.n_past) < end:
        stop = min(begin + n_batch, end, max(begin, first) + most_outputs)
        stop = begin + sequence.chunk(stop - begin)
        n_outputs = max(0, stop - max(begin, first))
        runner.forward([next_item(sequence, stop - begin, n_outputs)])
        sequence.advance(stop - begin)
        for i in range(n_outputs):
            logits = np.asarray(runner.logits(i))
            yield log_sum_exp(logits) - float(logits[tokens[stop - n_outputs + i + 1]])
