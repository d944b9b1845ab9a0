"""From a request to a job: sequences, sampling parameters, time limits."""

from __future__ import annotations

import time

import pytest

from support.api.http import COMPLETIONS, client, error_of, events, text_of
from support.fakes.engine import FakeEngine, ids, make_app, tokenizer

pytestmark = pytest.mark.asyncio


async def test_several_prompts_and_choices_are_numbered_and_summed():
    def reply(request):
        return ids(f" {request.params.seed} {len(request.prompt)}")

    engine = FakeEngine(reply)
    body = {"prompt": ["One", [5, 6, 7, 8]], "n": 2, "seed": 40}
    async with client(engine) as http:
        whole = (await http.post(COMPLETIONS, json=body)).json()
        stream = await http.post(
            COMPLETIONS, json={**body, "stream": True, "stream_options": {"include_usage": True}}
        )
    texts = [choice["text"] for choice in whole["choices"]]
    assert [choice["index"] for choice in whole["choices"]] == [0, 1, 2, 3]
    one = len(tokenizer().encode("One"))
    assert texts == [f" 40 {one}", f" 41 {one}", " 40 4", " 41 4"]
    chunks = events(stream.text)
    assert [text_of(chunks, i) for i in range(4)] == texts
    finished = [c["index"] for chunk in chunks for c in chunk["choices"] if c["finish_reason"]]
    assert sorted(finished) == [0, 1, 2, 3]
    n_generated = sum(len(ids(text)) + 1 for text in texts)  # and one end of text each
    for usage in (whole["usage"], chunks[-1]["usage"]):
        assert usage["prompt_tokens"] == one + 4
        assert usage["completion_tokens"] == n_generated
        assert usage["total_tokens"] == one + 4 + n_generated
    assert len({request.id for request in engine.seen}) == 8


async def test_stop_tokens_are_not_part_of_the_text():
    little = ids(" little")[0]
    async with client() as http:
        body = (
            await http.post(
                COMPLETIONS, json={"prompt": "Once", "stop_token_ids": [little], "return_tokens": True}
            )
        ).json()
    choice = body["choices"][0]
    assert choice["text"] == " there was a"
    assert choice["tokens"] == ids(" there was a")
    assert choice["finish_reason"] == "stop"


async def test_the_servers_own_time_limit_cannot_be_raised():
    engine = FakeEngine()
    async with client(make_app(engine, request_timeout_s=1.0)) as http:
        before = time.monotonic() * 1000
        await http.post(COMPLETIONS, json={"prompt": "Once", "timeout_ms": 60_000})
        await http.post(COMPLETIONS, json={"prompt": "Once"})
        after = time.monotonic() * 1000
    assert all(before + 1000 <= request.deadline_ms <= after + 1000 for request in engine.seen)


@pytest.mark.parametrize(
    ("n_keep", "n_kept"), [(None, 1), (0, 1), (2, 3), (-1, len(tokenizer().encode("Once")) + 1)]
)
async def test_n_keep_counts_the_tokens_after_the_beginning(n_keep, n_kept):
    engine = FakeEngine()
    async with client(make_app(engine, context_shift=True)) as http:
        answer = (await http.post(COMPLETIONS, json={"prompt": "Once", "n_keep": n_keep})).json()
        ollama = {"prompt": "Once", "raw": True, "stream": False, "options": {"num_keep": n_keep}}
        await http.post("/api/generate", json={"model": "stories", **ollama})
    assert "warnings" not in answer
    assert [request.n_keep for request in engine.seen] == [n_kept, n_kept]


async def test_fields_of_a_context_shift_without_one_get_a_warning():
    engine = FakeEngine()
    async with client(engine) as http:
        answer = (await http.post("/completion", json={"prompt": "Once", "n_keep": 4, "n_discard": 5})).json()
    assert answer["warnings"] == [
        f"{name} has no effect: the server runs without --context-shift" for name in ("n_keep", "n_discard")
    ]
    assert (engine.seen[0].n_keep, engine.seen[0].n_discard) == (0, 0)


async def test_n_discard_sets_how_many_tokens_a_context_shift_drops():
    engine = FakeEngine()
    async with client(make_app(engine, context_shift=True)) as http:
        answer = (await http.post("/completion", json={"prompt": "Once", "n_discard": 5})).json()
    assert "warnings" not in answer
    assert answer["generation_settings"]["n_discard"] == engine.seen[0].n_discard == 5


async def test_token_limit_beyond_the_context_is_kept_if_the_context_shifts():
    engine = FakeEngine()
    async with client(make_app(engine, context_shift=True)) as http:
        body = {"prompt": "Once", "max_tokens": engine.n_ctx * 2, "min_tokens": engine.n_ctx + 1}
        answer = (await http.post(COMPLETIONS, json=body)).json()
    assert "warnings" not in answer
    assert engine.seen[0].params.max_tokens == engine.n_ctx * 2


@pytest.mark.parametrize(
    ("options", "fields", "n", "warning"),
    [
        ({}, {}, 0, None),
        ({}, {"speculative.type": "ngram-simple"}, 16, None),
        ({}, {"speculative.n_max": 4}, 0, "speculative.n_max has no effect: speculative.type is none"),
        ({}, {"speculative.n_max": 0}, 0, None),
        ({"spec_type": "ngram-simple"}, {}, 16, None),
        ({"spec_type": "ngram-simple", "spec_draft_n_max": 5}, {}, 5, None),
        ({"spec_type": "ngram-simple"}, {"speculative.type": "none"}, 0, None),
        ({"spec_type": "ngram-simple"}, {"speculative.n_max": 4}, 4, None),
        ({"spec_type": "ngram-simple"}, {"speculative.n_max": 400}, 32, "speculative.n_max: 32 is used"),
        ({}, {"speculative_type": "ngram-simple"}, 0, "speculative_type has no effect"),
        ({}, {"speculative.p_min": 0.5}, 0, "speculative.p_min has no effect"),
    ],
)
async def test_number_of_drafts_is_limited_by_request_and_options(options, fields, n, warning):
    engine = FakeEngine()
    async with client(make_app(engine, **options)) as http:
        body = (await http.post(COMPLETIONS, json={"prompt": "Once", **fields})).json()
    assert engine.seen[0].draft_max == n
    warnings = body.get("warnings", [])
    assert len(warnings) == (warning is not None)
    assert warning is None or warnings[0].startswith(warning)


async def test_model_that_cannot_draft_warns_only_if_a_request_asks_for_it():
    engine = FakeEngine()
    engine.info = {**(engine.info or {}), "drafts": False}
    async with client(make_app(engine, spec_type="ngram-simple")) as http:
        silent = (await http.post(COMPLETIONS, json={"prompt": "Once"})).json()
        expected = {"prompt": "Once", "speculative.type": "ngram-simple"}
        warned = (await http.post(COMPLETIONS, json=expected)).json()
    assert [request.draft_max for request in engine.seen] == [0, 0]
    assert "warnings" not in silent
    assert warned["warnings"] == [
        "speculative.type has no effect: states of recurrent layers cannot be rolled back"
    ]


@pytest.mark.parametrize(
    ("options", "fields", "expected"),
    [
        ({}, {}, (16, "draft-simple")),
        ({"spec_type": "draft-simple"}, {"speculative.n_max": 3}, (3, "draft-simple")),
        ({}, {"speculative.type": "ngram-simple"}, (16, "ngram-simple")),
        ({}, {"speculative.type": "none"}, (0, "ngram-simple")),
        ({"spec_type": "none"}, {}, (0, "ngram-simple")),
        ({"spec_type": "ngram-simple"}, {"speculative.type": "draft-simple"}, (16, "draft-simple")),
    ],
)
async def test_draft_model_drafts_unless_request_or_options_choose_another(options, fields, expected):
    engine = FakeEngine()
    async with client(make_app(engine, draft_model="draft.gguf", **options)) as http:
        body = (await http.post(COMPLETIONS, json={"prompt": "Once", **fields})).json()
    assert (engine.seen[0].draft_max, engine.seen[0].spec_type) == expected
    assert "warnings" not in body


async def test_request_for_a_missing_draft_model_runs_without_drafts():
    engine = FakeEngine()
    async with client(make_app(engine)) as http:
        fields = {"prompt": "Once", "speculative.type": "draft-simple"}
        body = (await http.post(COMPLETIONS, json=fields)).json()
    assert engine.seen[0].draft_max == 0
    assert body["warnings"] == ["speculative.type has no effect: no draft model is loaded (--draft-model)"]


async def test_unknown_speculation_types_are_refused():
    async with client() as http:
        answer = await http.post(COMPLETIONS, json={"prompt": "Once", "speculative.type": "draft-mtp"})
    error = error_of(answer, 400)
    assert error["param"] == "speculative.type"
    assert "'none', 'ngram-simple' or 'draft-simple'" in error["message"]
