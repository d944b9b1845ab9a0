"""A session whose numbers are broken leaves nothing behind that other sessions would read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import engine
from engine.types import FinishReason, Request
from support.builders.golden import FOLDER, TinyModel
from support.fakes.runner import drain

GREEDY = engine.InferenceParameters(temperature=0.0, max_tokens=8, ignore_eos=True)
BROKEN = 7  # a token whose embedding is no number


@pytest.mark.parametrize("flash_attn", ["auto", "on", "off"])
def test_nan_in_a_session_does_not_reach_others(flash_attn: str, tmp_path: Path) -> None:
    model = TinyModel.read(FOLDER / "llama-gqa-tied.gguf")
    model.tensors["token_embd.weight"][BROKEN] = np.nan
    model.tensors["output.weight"] = TinyModel.read(FOLDER / "llama-gqa-tied.gguf").tensors[
        "token_embd.weight"
    ]
    params = engine.ModelParameters(
        use_gpu=False, flash_attn=flash_attn, n_threads=1, context_size=128, kv_cells=256, parallel=2
    )
    with engine.load(model.write(tmp_path / "model.gguf"), params) as loaded:
        scheduler = loaded.scheduler()
        scheduler.submit(Request(id="alone", prompt=[1, 2, 3], params=GREEDY, cache_prompt=False))
        outcome = drain(scheduler)
        scheduler.submit(Request(id="broken", prompt=[BROKEN] * 40, params=GREEDY))
        drain(scheduler, outcome)
        scheduler.submit(Request(id="after", prompt=[1, 2, 3], params=GREEDY, cache_prompt=False))
        drain(scheduler, outcome)
    assert outcome.finish("broken") is FinishReason.ERROR
    assert "no finite logit" in (outcome.last["broken"].error or "")
    assert outcome.finish("after") is FinishReason.LENGTH
    assert outcome.tokens["after"] == outcome.tokens["alone"]
