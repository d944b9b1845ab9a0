"""Attention on latents: the tensors that a layer names. What it computes: the references `deepseek2*`."""

from __future__ import annotations

import pytest

from engine.hparams import Latent, Rope
from engine.nn.binder import Binder
from engine.nn.latent_attention import LatentAttention
from support.builders.hparams import hparams

ROPE = Rope(mode="interleaved", n_dims=4)


def shapes(q_rank: int) -> dict[str, tuple[int, ...]]:
    latent = Latent(head_dim_k=10, head_dim_v=5, q_rank=q_rank)
    hp = hparams(
        n_embd=16, n_head=(3,), n_head_kv=(1,), head_dim_k=12, head_dim_v=8, rope=ROPE, latent=latent
    )
    binder = Binder(lambda name: name.endswith(".weight"))
    LatentAttention(binder, hp, 0)
    return {
        spec.name.removeprefix("blk.0.attn_").removesuffix(".weight"): spec.shape for spec in binder.specs
    }


KEYS_AND_VALUES = {
    "kv_a_mqa": (16, 12),
    "kv_a_norm": (8,),
    "k_b": (6, 8, 3),  # the part of the keys that is not rotated, absorbed into Q
    "v_b": (8, 5, 3),
    "output": (15, 16),
}


@pytest.mark.parametrize(
    ("q_rank", "queries"), [(0, {"q": (16, 30)}), (7, {"q_a": (16, 7), "q_a_norm": (7,), "q_b": (7, 30)})]
)
def test_matrices_have_the_sizes_of_latents_and_heads(
    q_rank: int, queries: dict[str, tuple[int, ...]]
) -> None:
    assert shapes(q_rank) == queries | KEYS_AND_VALUES
