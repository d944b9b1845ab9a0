"""A full context shifts in every kind of layer: each window continues as a prompt of its own would."""

from __future__ import annotations

import pytest

import engine
from engine.types import InferenceParameters, Request
from support.builders.golden import FOLDER, golden
from support.fakes.runner import drain
from support.quick import matrix

N_CTX, N_KEEP, N = 80, 5, 140
KINDS = {
    "a window": ("gemma3", "gpt-oss", "llama4-chunks", "gemma3n", "cohere2", "phi3"),
    "a state": ("mamba", "mamba2", "qwen35", "lfm2", "jamba", "falcon-h1", "nemotron_h"),
    "latents": ("deepseek2", "deepseek2-v3", "mistral4"),
    "ALiBi": ("bloom", "mpt"),
    "learned positions": ("gpt2",),
    "RoPE": ("llama", "qwen3vl"),
}
CASES = [name for names in KINDS.values() for name in names]
QUICK = {names[0] for names in KINDS.values()}


@pytest.mark.parametrize("name", matrix(CASES, QUICK.__contains__))
def test_full_context_continues_like_a_prompt_of_the_remaining_tokens(name: str) -> None:
    options = {"context_size": N_CTX, "kv_cells": 400, "parallel": 1, "kv_type": "f32"}
    options |= {"max_batch_tokens": 32, "checkpoints": 1}
    params = engine.ModelParameters(use_gpu=False, n_threads=1, context_shift=True, **options)  # type: ignore[arg-type]
    with engine.load(FOLDER / f"{name}.gguf", params) as model:
        assert (model.pool.windows is not None) is (name in KINDS["a window"])
        assert (model.pool.states is not None) is (name in KINDS["a state"])

        def answer(prompt: list[int], n: int, *, cache: bool) -> list[int]:
            greedy = InferenceParameters(temperature=0.0, max_tokens=n, ignore_eos=True)
            scheduler = model.scheduler()
            scheduler.submit(Request(id="x", prompt=prompt, params=greedy, n_keep=N_KEEP, cache_prompt=cache))
            return drain(scheduler).tokens["x"]

        window, expected = list(golden(name).prompt[:40]), list[int]()
        answers = [answer(window, N, cache=cache) for cache in (False, True, True)]
        while len(expected) < N:
            part = answer(window, min(N_CTX - len(window), N - len(expected)), cache=False)
            expected += part
            window += part
            window = window[:N_KEEP] + window[N_KEEP + (N_CTX - 1 - N_KEEP) // 2 :]
    assert answers == [expected] * 3
