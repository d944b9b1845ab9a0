"""Which tensors a mixture quantizes, and the types that its rules give; whole files: test_quantizer.py."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.gguf import GGMLType
from engine.quantize.mixes import Mixture, ModelTraits, fallback, part_of, quantizable

BLOCKS = {t.ggml_name: t.block_size for t in GGMLType}
TRAITS = ModelTraits(n_layer=16, n_gqa=4, n_expert=0, tied=False, has_importance=False, one_norm=False)
WIDE = (512, 512)


def types(mix: str, part: str, traits: ModelTraits = TRAITS) -> list[str]:
    mixture = Mixture(mix, traits, BLOCKS)
    names = [f"blk.{i}.{part}.weight" for i in range(traits.n_layer)]
    mixture.count(names)
    return [mixture.type_of(name, WIDE) for name in names]


@pytest.mark.parametrize(
    ("name", "n_dims", "expected"),
    [
        ("blk.0.attn_q.weight", 2, True),
        ("blk.0.ffn_up_exps.weight", 3, True),
        ("blk.0.attn_q.bias", 1, False),
        ("blk.0.attn_q_norm.weight", 2, False),
        ("blk.0.ffn_gate_inp.weight", 2, False),
        ("position_embd.weight", 2, False),
    ],
)
def test_only_large_matrices_are_quantized(name: str, n_dims: int, expected: bool) -> None:
    assert quantizable(name, n_dims) is expected


def test_experts_have_the_role_of_their_matrix() -> None:
    names = ("output.weight", "token_embd.weight", "blk.3.ffn_down_exps.weight", "blk.3.attn_output.weight")
    assert [part_of(name) for name in names] == ["head", "embedding", "down", "out"]


@pytest.mark.parametrize(
    ("kind", "n", "expected"),
    [
        ("q4_K", 512, "q4_K"),
        ("q4_K", 288, "q5_0"),
        ("q6_K", 96, "q8_0"),
        ("q4_K", 100, "f16"),
        ("q4_0", 33, "f16"),
    ],
)
def test_rows_that_are_not_whole_blocks_get_a_type_of_smaller_blocks(
    kind: str, n: int, expected: str
) -> None:
    assert fallback(kind, n, BLOCKS) == expected


def test_q4_k_m_gives_more_bits_to_the_first_the_last_and_every_third_layer() -> None:
    down = types("Q4_K_M", "ffn_down")
    assert [i for i, kind in enumerate(down) if kind == "q6_K"] == [0, 1, 4, 7, 10, 13, 14, 15]
    assert set(types("Q4_K_M", "ffn_up")) == {"q4_K"}


def test_a_tied_embedding_gets_the_type_of_the_head() -> None:
    untied, tied = Mixture("Q4_K_M", TRAITS, BLOCKS), Mixture("Q4_K_M", replace(TRAITS, tied=True), BLOCKS)
    assert untied.type_of("token_embd.weight", WIDE) == "q4_K"
    assert tied.type_of("token_embd.weight", WIDE) == "q6_K"


def test_model_with_eight_experts_gets_more_bits_for_attention() -> None:
    assert set(types("Q4_K_M", "attn_v", replace(TRAITS, n_expert=8))) == {"q8_0"}
    assert set(types("Q4_K_M", "attn_k", replace(TRAITS, n_expert=8))) == {"q8_0"}


def test_pure_makes_exceptions_only_for_odd_rows() -> None:
    mixture = Mixture("Q4_K_M", TRAITS, BLOCKS)
    assert mixture.type_of("output.weight", WIDE, pure=True) == "q4_K"
    assert mixture.type_of("output.weight", (288, 8), pure=True) == "q5_0"
