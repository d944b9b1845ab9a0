"""Sound files whose contents ggml would answer with an abort: refused when loaded, or computed."""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import Any

import pytest

import engine
from engine.gguf import GGMLType, GGUFFile, validate_model
from engine.scheduler.batch import BatchItem
from support.builders.gguf import GGUFBuilder, tiny_llama

HEADS, KV_HEADS, N_VOCAB = 4, 2, 32
PARAMS = engine.ModelParameters(n_threads=1, context_size=32, kv_cells=64, max_batch_tokens=8, parallel=2)


def llama(
    keys: dict[str, Any] | None = None,
    types: dict[str, GGMLType] | None = None,
    extra: dict[str, tuple[int, ...]] | None = None,
    *,
    width: int = 256,
    head_dim: int = 64,
    experts: int = 0,
) -> GGUFBuilder:
    """One layer. `types`: of tensors that are not F32; `extra`: more tensors, or other shapes."""
    b, types = tiny_llama(n_layers=0, n_vocab=N_VOCAB, width=width), types or {}
    b.infos, b.blob = [], b""
    b.key("llama.block_count", 1).key("llama.feed_forward_length", width)
    b.key("llama.attention.key_length", head_dim).key("llama.attention.value_length", head_dim)
    b.key("llama.rope.dimension_count", head_dim // 2 * 2)
    for name, value in (keys or {}).items():
        b.key(name, value)
    ffn = ("ffn_gate", "ffn_up", "ffn_down")
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (width, N_VOCAB),
        "output_norm.weight": (width,),
        "output.weight": (width, N_VOCAB),
        "blk.0.attn_norm.weight": (width,),
        "blk.0.attn_q.weight": (width, HEADS * head_dim),
        "blk.0.attn_k.weight": (width, KV_HEADS * head_dim),
        "blk.0.attn_v.weight": (width, KV_HEADS * head_dim),
        "blk.0.attn_output.weight": (HEADS * head_dim, width),
        "blk.0.ffn_norm.weight": (width,),
    }
    if experts:
        shapes["blk.0.ffn_gate_inp.weight"] = (width, experts)
        shapes |= {f"blk.0.{name}_exps.weight": (width, width, experts) for name in ffn}
    else:
        shapes |= {f"blk.0.{name}.weight": (width, width) for name in ffn}
    shapes |= extra or {}
    for name, shape in shapes.items():
        kind, rows = types.get(name, GGMLType.F32), 1
        for n in shape[1:]:
            rows *= n
        b.tensor(name, shape, type_number=int(kind), data=bytes(kind.row_size(shape[0]) * rows))
    return b


def load(file: GGUFBuilder, folder: Path, params: engine.ModelParameters = PARAMS) -> engine.Model:
    return engine.load(file.write(folder / "model.gguf"), params)


def run(model: engine.Model) -> list[float]:
    assert model.runner.forward([BatchItem([1, 2, 3], array("i", [7, 6, 5]), 0, True)]) == 1
    return list(model.runner.logits(0))


def test_base_model_runs(tmp_path: Path) -> None:
    with load(llama(), tmp_path) as model:
        assert run(model) == [0.0] * N_VOCAB


@pytest.mark.parametrize("kind", ["I8", "I16", "I32", "I64", "F64", "Q8_1", "Q8_K"])
@pytest.mark.parametrize("name", ["token_embd", "blk.0.attn_q", "blk.0.ffn_up_exps"])
def test_matrix_of_a_type_without_kernels_is_refused(tmp_path: Path, name: str, kind: str) -> None:
    file = llama(
        {"llama.expert_count": 2, "llama.expert_used_count": 1} if "exps" in name else {},
        {f"{name}.weight": GGMLType[kind]},
        experts=2 if "exps" in name else 0,
    )
    with pytest.raises(
        engine.UnsupportedModelError, match=f"{name}.weight has type {kind}, which \\w+ cannot use"
    ):
        load(file, tmp_path)


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_K", "I32", "F64"])
@pytest.mark.parametrize("name", ["blk.0.attn_norm.weight", "blk.0.attn_q.bias", "rope_freqs.weight"])
def test_vector_that_is_not_f32_is_refused(tmp_path: Path, name: str, kind: str) -> None:
    shape = {"blk.0.attn_q.bias": (4 * 256,), "rope_freqs.weight": (256,)}
    extra = {name: shape[name]} if name in shape else {}
    file = llama({}, {name: GGMLType[kind]}, extra, head_dim=512 if "rope" in name else 256)
    with pytest.raises(engine.UnsupportedModelError, match=f"{name} has type {kind}, .*must be F32"):
        load(file, tmp_path)


def test_embedding_of_an_invalid_shape_is_refused(tmp_path: Path) -> None:
    with GGUFFile.open(llama({"tokenizer.ggml.model": "none"}).write(tmp_path / "m.gguf")) as gguf:
        validate_model(gguf)
        info = gguf.tensors["token_embd.weight"]
        for shape in ((256,), (256, 32, 1), (8, 32), (256, (1 << 21) + 1)):
            gguf.tensors["token_embd.weight"] = info._replace(shape=shape)
            with pytest.raises(engine.ModelError, match=r"token_embd.weight' has shape"):
                validate_model(gguf)


def test_heads_that_cannot_be_rotated_are_refused(tmp_path: Path) -> None:
    file = llama(head_dim=5)
    file.drop("llama.rope.dimension_count")
    with pytest.raises(engine.UnsupportedModelError, match=r"llama.rope.dimension_count is 5.*even"):
        load(file, tmp_path)
    with load(llama({"llama.rope.dimension_count": 4}, head_dim=5), tmp_path) as model:
        assert run(model) == [0.0] * N_VOCAB


@pytest.mark.parametrize("used", [2, 64, 300])
def test_any_number_of_experts_can_be_used(tmp_path: Path, used: int) -> None:
    file = llama({"llama.expert_count": 300, "llama.expert_used_count": used}, experts=300, width=32)
    with load(file, tmp_path) as model:
        assert run(model) == [0.0] * N_VOCAB
