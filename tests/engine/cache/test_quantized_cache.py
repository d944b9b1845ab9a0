"""A cache of 8 bits beside one of 32, for every architecture, with heads of 32, as blocks want them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import engine
from engine import architectures
from engine.gguf import GGUFFile
from engine.nn.binder import Binder
from support.builders.golden import NAMES, TinyModel, golden, rms_error
from support.quick import every

BOUNDS = {"f16": 0.03, "q8_0": 0.15}  # several times what is seen


def one_of_each() -> dict[str, str]:
    """An architecture's name, and the first of its golden files."""
    collected: dict[str, str] = {}
    for name in NAMES:
        with GGUFFile.open(golden(name).path) as file:
            collected.setdefault(file.arch, name)
    return {arch: name for arch, name in collected.items() if not arch.startswith("mamba")}


GOLDENS = one_of_each()


def with_heads_of_32(name: str, path: Path) -> Path:
    """The golden model's keys and tensors, with random numbers in other sizes: two heads of 32."""
    model = TinyModel.read(golden(name).path)
    arch = model.keys["general.architecture"][0]
    n_head, n_kv = (model.keys.get(f"{arch}.attention.head_count{s}", (0,))[0] for s in ("", "_kv"))
    model.set("embedding_length", 64)
    model.set("attention.head_count", 2)
    if isinstance(n_kv, list):  # layers without attention have no heads
        model.set("attention.head_count_kv", [min(n, 1) for n in n_kv])
    elif n_kv:
        model.set("attention.head_count_kv", 2 if n_kv == n_head else 1)
    for key in ("key_length", "value_length", "key_length_swa", "value_length_swa"):
        if f"{arch}.attention.{key}" in model.keys:
            model.set(f"attention.{key}", 32)
    if f"{arch}.rope.dimension_count" in model.keys:
        model.set("rope.dimension_count", 16)
    if f"{arch}.attention.kv_lora_rank" in model.keys:  # a latent and a rotated part of 32
        sizes = {"kv_lora_rank": 32, "key_length": 64, "value_length": 32, "key_length_mla": 48}
        for key, size in sizes.items():
            model.set(f"attention.{key}", size)
        model.set("rope.dimension_count", 32)
    for key in list(model.tensors):
        if key.startswith("rope_f"):
            del model.tensors[key]
    rng = np.random.default_rng(1)
    with GGUFFile.open(model.write(path)) as file:
        cls = architectures.get(arch)
        binder = Binder(file.tensors.__contains__)
        hp = cls.hparams(file)
        cls(hp).bind(binder)
        specs = binder.specs
    model.tensors.clear()
    for spec in specs:
        shape = spec.shape[::-1]
        if "norm" in spec.name and spec.name.endswith("weight"):
            x = rng.uniform(0.5, 1.5, shape)
            if "attn_q_norm" in spec.name and hp.attention_scale == 1.0:  # nothing else scales its scores
                x *= hp.head_dim_k**-0.5
        elif spec.name.endswith("ssm_a"):  # a decay
            x = -rng.uniform(0.5, 1.5, shape)
        else:
            x = rng.normal(0, 0.3 if len(shape) == 1 else 1.3 / np.sqrt(shape[-1]), shape)
        model.tensors[spec.name] = x.astype(np.float32)
    return model.write(path)


def test_every_decoder_has_a_case() -> None:
    encoders = {"bert", "nomic-bert", "modern-bert", "gemma-embedding", "jina-bert-v2"}
    others = {*encoders, "mamba", "mamba2"}  # and models without attention
    assert set(GOLDENS) == set(architectures.names()) - others


@pytest.mark.parametrize("flash_attn", ["auto", "on"])
@pytest.mark.parametrize("arch", every(12, GOLDENS))
def test_logits_with_a_quantized_cache_stay_close(arch: str, flash_attn: str, tmp_path: Path) -> None:
    path, prompt = with_heads_of_32(GOLDENS[arch], tmp_path / "model.gguf"), golden(GOLDENS[arch]).prompt[:90]
    collected = {}
    for kv_type in ("f32", *BOUNDS):
        params = engine.ModelParameters(
            use_gpu=False, kv_type=kv_type, context_size=128, n_threads=1, flash_attn=flash_attn
        )
        with engine.load(path, params) as model:
            assert model.hp.head_dim_k == (64 if model.hp.latent else 32)
            with model.start_session(engine.InferenceSessionConfig(n_batch=32)) as session:
                session.feed_prompt(prompt)
                collected[kv_type] = session.last_logits
    assert collected["f32"].std() > 0
    for kv_type, bound in BOUNDS.items():
        assert 0 < rms_error(collected[kv_type], collected["f32"]) < bound, kv_type
