"""Speculative decoding on real computations: the same text to the bit, in company, with every sampler."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import engine
from bench.related_model import write
from engine.config import DRAFT_MODEL, NGRAM
from engine.engine import Model
from engine.quantize.quantizer import quantize_file
from engine.types import Constraint, InferenceParameters, Request, Token
from support.fakes.drafts import draft_always, draft_at_random
from support.fakes.engine import STORIES
from support.quick import matrix

N_SEEDS = 400
STORY = "Once upon a time there was a little girl. She had a red ball. One day the red ball was gone. "
SAMPLING = {
    "greedy": InferenceParameters(temperature=0.0, max_tokens=60, logprobs=2),
    "seeded": InferenceParameters(temperature=0.8, seed=3, top_p=0.9, max_tokens=60, logprobs=0),
    "penalised": InferenceParameters(temperature=0.7, seed=4, repeat_penalty=1.2, max_tokens=60),
    "mirostat": InferenceParameters(temperature=1.0, seed=5, mirostat=2, max_tokens=60),
    "short": InferenceParameters(temperature=0.0, max_tokens=7, ignore_eos=True),
}


@pytest.fixture(scope="module", params=matrix(["Q8_0", "Q4_K_M"], always=lambda kind: kind == "Q8_0"))
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model with packed weights."""
    path = tmp_path_factory.mktemp("models") / "model.gguf"
    quantize_file(STORIES, path, request.param, requantize=True)
    return path


def load(path: Path, draft: Path | None) -> Model:
    params = engine.ModelParameters(
        use_gpu=False,
        n_threads=1,
        context_size=256,
        kv_cells=1024,
        draft_model=None if draft is None else str(draft),
    )
    return engine.load(path, params)


@pytest.fixture(scope="module")
def model(path: Path) -> Iterator[Model]:
    with load(path, None) as model:
        yield model


@pytest.fixture(scope="module")
def drafted(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """With the model's own first layers as its draft model, which is right now and then."""
    draft = tmp_path_factory.mktemp("models") / "draft.gguf"
    write(path, draft, range(3))
    with load(path, draft) as model:
        yield model


def requests(model: Model, draft_max: int, spec_type: str = NGRAM) -> list[Request]:
    prompt = model.tokenizer.encode(STORY * 2)
    schema = Constraint("regex", "(The|A) [a-z ]{30}(yes|no)")
    actual = [
        Request(id=name, prompt=prompt, params=params, draft_max=draft_max, spec_type=spec_type)
        for name, params in SAMPLING.items()
    ]
    actual.append(
        Request(
            id="constrained",
            prompt=prompt,
            params=SAMPLING["seeded"],
            draft_max=draft_max,
            spec_type=spec_type,
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
        draft_always(scheduler)
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


def test_a_draft_model_changes_no_token_and_no_probability(model: Model, drafted: Model) -> None:
    expected = run(model, requests(model, 0))
    requested = requests(drafted, 8, DRAFT_MODEL)
    assert run(drafted, requested) == expected
    for request in requested[:2]:  # alone, where more is drafted
        assert run(drafted, [request]) == {request.id: expected[request.id]}
    mixed = [
        msgspec.structs.replace(request, spec_type=spec_type)
        for request, spec_type in zip(requested, [DRAFT_MODEL, NGRAM] * 3, strict=True)
    ]
    assert run(drafted, mixed) == expected
    resumed = msgspec.structs.replace(requested[1], generated=[token.id for token in expected["seeded"][:20]])
    assert run(drafted, [resumed])["seeded"] == expected["seeded"][20:]


def test_model_drafting_for_itself_has_all_drafts_accepted(path: Path) -> None:
    with load(path, path) as model:
        scheduler = model.scheduler()
        draft_always(scheduler)
        params = InferenceParameters(temperature=0.0, max_tokens=60, ignore_eos=True)
        for id, text in (("a", STORY), ("b", "A cat")):
            prompt = model.tokenizer.encode(text)
            scheduler.submit(Request(id=id, prompt=prompt, params=params, draft_max=6, spec_type=DRAFT_MODEL))
        while scheduler.has_work:
            scheduler.step()
        stats = scheduler.stats()
        assert stats.draft_accepted_tokens == stats.draft_tokens > 90
        assert stats.steps < 30
        assert model.describe()["draft_model"]["path"] == str(path)


def second_tokens(model: Model, first_seed: int, *, draft_max: int = 0, temperature: float = 1.0) -> Counter:
    """How often each token comes second, which is where the first draft is verified."""
    prompt = model.tokenizer.encode(STORY)
    fields = {"max_tokens": 3, "ignore_eos": True, "top_k": 12, "temperature": temperature}
    seeds = range(first_seed, first_seed + N_SEEDS)
    sampled = [
        Request(
            id=f"{seed}",
            prompt=prompt,
            params=InferenceParameters(seed=seed, **fields),
            draft_max=draft_max,
            spec_type=DRAFT_MODEL,
        )
        for seed in seeds
    ]
    return Counter(tokens[1].id for tokens in run(model, sampled).values())


def deviations(a: Counter, b: Counter) -> float:
    """Of Pearson's statistic from its mean, if both were drawn from one distribution."""
    common = [token for token, n in (a + b).items() if n >= 12]
    assert len(common) >= 5
    pairs = [(a[token], b[token]) for token in common]
    pairs.append((a.total() - sum(n for n, _ in pairs), b.total() - sum(n for _, n in pairs)))  # all others
    statistic = sum((n - m) ** 2 / (n + m) for n, m in pairs if n + m)
    return float(statistic - len(common)) / (2 * len(common)) ** 0.5


def test_sampled_texts_are_distributed_as_without_a_draft_model(model: Model, drafted: Model) -> None:
    """With other seeds, for with the same ones they are equal."""
    plain = second_tokens(model, 0)
    assert abs(deviations(plain, second_tokens(drafted, N_SEEDS, draft_max=4))) < 3
    assert deviations(plain, second_tokens(model, N_SEEDS, temperature=2.0)) > 6
