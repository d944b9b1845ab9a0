"""What follows from the headers of published files, where no key says it."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import architectures as arch
from engine.gguf import GGUFFile
from support.builders.gguf import GGUFBuilder

STRING, FLOAT, UINT32 = 8, 6, 4

# config.json: hidden_size, layers, heads, KV heads, head_dim, query_pre_attn_scalar.
GEMMA = {
    "gemma2": [
        (2304, 26, 8, 4, 256, 256),
        (3584, 42, 16, 8, 256, 256),
        (4608, 46, 32, 16, 128, 144),
    ],
    "gemma3": [
        (1152, 26, 4, 1, 256, 256),
        (2560, 34, 8, 4, 256, 256),
        (3840, 48, 16, 8, 256, 256),
        (5376, 62, 32, 16, 128, 168),
    ],
}


@pytest.mark.parametrize(("name", "published"), [(name, p) for name, all_ in GEMMA.items() for p in all_])
def test_scores_are_scaled_as_the_size_has_it(name: str, published: tuple[int, ...], tmp_path: Path) -> None:
    n_embd, n_layer, n_head, n_head_kv, head_dim, scalar = published
    builder = GGUFBuilder()
    builder.key("general.architecture", name, STRING)
    for key, value in {
        "embedding_length": n_embd,
        "block_count": n_layer,
        "context_length": 8192,
        "feed_forward_length": 4 * n_embd,
        "attention.head_count": n_head,
        "attention.head_count_kv": n_head_kv,
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
        "attention.sliding_window": 1024,
    }.items():
        builder.key(f"{name}.{key}", value, UINT32)
    builder.key(f"{name}.attention.layer_norm_rms_epsilon", 1e-6, FLOAT)
    with GGUFFile.open(builder.write(tmp_path / "header.gguf")) as file:
        hp = arch.get(name).hparams(file)
    assert hp.kq_scale == pytest.approx(scalar**-0.5)
