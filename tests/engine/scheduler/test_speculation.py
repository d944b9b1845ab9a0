"""Speculative decoding on real computations: the same text to the bit, in company, with every sampler."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import engine
from engine.engine import Model
from engine.quantize.quantizer import quantize_file
from engine.scheduler.drafter import Worth
from engine.types import Constraint, InferenceParameters, Request, Token
from support.fakes.drafts import draft_at_random
from support.fakes.engine import STORIES
from support.quick import matrix

STORY = "Once upon a time there was a little girl. She had a red ball. One day the red ball was gone. "
SAMPLING = {
    "greedy": InferenceParameters(temperature=0.0, max_tokens=60, logprobs=2),
    "seeded": InferenceParameters(temperature=0.8, seed=3, top_p=0.9, max_tokens=60, logprobs=0),
    "penalised": InferenceParameters(temperature=0.7, seed=4, repeat_penalty=1.2, max_tokens=60),
    "mirostat": InferenceParameters(temperature=1.0, seed=5, mirostat=2, max_tokens=60),
    "short": InferenceParameters(temperature=0.0, max_tokens=7, ignore_eos=True),
}


@pytest.fixture(scope="module", params=matrix(["Q8_0", "Q4_K_M"], always=lambda kind: kind == "Q8_0"))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """The bundled model with packed weights."""
    path = tmp_path_factory.mktemp("models") / "model.gguf"
    quantize_file(STORIES, path, request.param, requantize=True)
    params = engine.ModelParameters(use_gpu=False, n_threads=2, context_size=256, kv_cells=1024)
    with engine.load(Path(path), params) as model:
        yield model


def requests(model: Model, draft_max: int) -> list[Request]:
    prompt = model.tokenizer.encode(STORY * 2)
    schema = Constraint("regex", "(The|A) [a-z ]{30}(yes|no)")
    actual = [
        Request(id=name, prompt=prompt, params=params, draft_max=draft_max)
        for name, params in SAMPLING.items()
    ]
    actual.append(
        Request(
            id="constrained",
            prompt=prompt,
            params=SAMPLING["seeded"],
            draft_max=draft_max,
            constraint=schema,
            cache_prompt=False,
        )
    )
    return actual


def run(
    model: Model, requests: list[Request], right: dict[str, list[Token]] | None = None
) -> dict[str, list]:
    """The tokens of each request, with their log-probabilities; right: to draft from."""
    scheduler = model.scheduler()
    if right is not None:
        ids = {id: [token.id for token in tokens] for id, tokens in right.items()}
        draft_at_random(scheduler, random.Random(1), ids.__getitem__, model.hp.n_vocab)
    else:  # as much as the lookup gives, whatever it costs on this machine
        scheduler._builder.drafting._best_number = (  # type: ignore[method-assign]
            lambda n_rows, candidates: (len(candidates), Worth(0.0, 0.0, math.inf))
        )
    tokens: dict[str, list[Token]] = {}
    for request in requests:
        scheduler.submit(request)
    while scheduler.has_work:
        for output in scheduler.step():
            assert output.error is None
            tokens.setdefault(output.id, []).extend(output.tokens)
        scheduler.check()
    stats = scheduler.stats()
    scheduler.close()
    assert (stats.draft_accepted_tokens > 0) == any(request.draft_max for request in requests)
    return tokens


def test_drafts_by_lookup_change_no_token_and_no_probability(model: Model) -> None:
    expected = run(model, requests(model, 0))
    assert run(model, requests(model, 16)) == expected
    for request in requests(model, 16)[:2]:  # alone, where more is drafted
        assert run(model, [request]) == {request.id: expected[request.id]}


def test_right_and_wrong_drafts_change_no_token_and_no_probability(model: Model) -> None:
    expected = run(model, requests(model, 0))
    assert run(model, requests(model, 8), expected) == expected


def test_a_resumed_request_continues_as_if_uninterrupted(model: Model) -> None:
    expected = run(model, requests(model, 0))
    for request in requests(model, 8)[:3]:
        tokens = expected[request.id]
        for n in (1, 20):
            rest = msgspec.structs.replace(request, generated=[token.id for token in tokens[:n]])
            result = run(model, [rest], {request.id: tokens})
            assert [token.id for token in result[request.id]] == [token.id for token in tokens[n:]]
