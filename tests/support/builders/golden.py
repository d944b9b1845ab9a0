"""Golden references (`tests/golden`), and small models derived from them.

A `TinyModel` is a GGUF in memory that tests change: to see a mistake caught, or to hold its matrices in
another type.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from engine.types import Timings
from support.builders.gguf import GGUFBuilder
from support.references.greedy import Greedy

FOLDER = Path(__file__).resolve().parents[2] / "golden"
# Their .npz hold hidden states, see tests/engine/tasks/test_embedding.py.
ENCODERS = (
    *("bert", "nomic-bert", "gemma-embedding", "modern-bert"),
    *("jina-bert-v2", "jina-bert-v2-code"),
)
RANKERS = ("bert-rank", "xlm-roberta-rank")  # and these the scores of a pair
NAMES = sorted(path.stem for path in FOLDER.glob("*.npz") if path.stem not in ENCODERS + RANKERS)
# Grouped heads, windows, experts, soft-caps, sinks, parallel residuals, ALiBi, long RoPE, learned positions,
# latents, chunks: what differs most from each other, for the tests that every run does.
REPRESENTATIVES = (
    *("llama-gqa-tied", "llama-window", "mixtral", "gemma2", "gpt-oss"),
    *("falcon-40b", "mpt", "phi3-long", "gpt2", "deepseek2-v3", "llama4-chunks"),
)

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Golden:
    """What transformers computed; see tests/golden/README.md."""

    path: Path
    prompt: list[int]
    positions: list[int]
    logits: Floats  # [position, vocabulary]
    greedy: Greedy
    last: Floats


def golden(name: str) -> Golden:
    with np.load(FOLDER / f"{name}.npz") as arrays:
        greedy = Greedy(arrays["greedy"].tolist(), arrays["margins"].tolist(), Timings())
        return Golden(
            path=FOLDER / f"{name}.gguf",
            prompt=arrays["prompt"].tolist(),
            positions=arrays["positions"].tolist(),
            logits=arrays["logits"],
            greedy=greedy,
            last=arrays["last"],
        )


def error(got: Floats, expected: Floats) -> float:
    """The largest difference of one row of logits, relative to the row's root mean square.

    Stricter than relative to the largest logit, by the factor 3 or so that lies between the two.
    """
    assert got.shape == expected.shape
    assert got.dtype == np.float32
    return float(np.abs(got - expected).max() / np.sqrt(np.square(expected).mean()))


def rms_error(got: Floats, expected: Floats) -> float:
    """The root mean square of the differences, relative to that of the expected logits."""
    assert got.shape == expected.shape
    return float(np.sqrt(np.square(got - expected).mean() / np.square(expected).mean()))


@dataclass
class TinyModel:
    """Keys (value, type, type of elements) and float32 tensors in numpy's order."""

    keys: dict[str, tuple[Any, int, int | None]] = field(default_factory=dict)
    tensors: dict[str, Floats] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> TinyModel:
        reader, model = gguf.GGUFReader(path), cls()
        for name, entry in reader.fields.items():
            if not name.startswith("GGUF."):
                types = [int(t) for t in entry.types]
                model.keys[name] = (entry.contents(), types[0], types[1] if len(types) > 1 else None)
        for tensor in reader.tensors:
            assert tensor.tensor_type == gguf.GGMLQuantizationType.F32
            model.tensors[tensor.name] = np.array(tensor.data, np.float32)
        return model

    def set(self, key: str, value: Any) -> None:
        """Changes or adds a key of the architecture."""
        name = f"{self.keys['general.architecture'][0]}.{key}"
        number = {bool: 7, float: 6}.get(type(value), 4)
        kind = self.keys[name][1] if name in self.keys else number
        self.keys[name] = (value, kind, self.keys[name][2] if isinstance(value, list) else None)

    def write(self, path: Path, blocks: dict[str, tuple[int, bytes]] | None = None) -> Path:
        """`blocks`: number of the type and data of the tensors that are not to be float32."""
        builder = GGUFBuilder()
        for name, (value, kind, element) in self.keys.items():
            builder.key(name, value, kind if element is None else element)
        for name, tensor in self.tensors.items():
            number, data = (blocks or {}).get(name) or (0, np.ascontiguousarray(tensor).tobytes())
            builder.tensor(name, tensor.shape[::-1], data=data, type_number=number)
        return builder.write(path)


WIDTH, FEED_FORWARD = 256, 512  # whole blocks of every type


def wide_model(seed: int, n_expert: int = 0) -> TinyModel:
    """Two random layers with rows of whole blocks for every type: 4 heads of 64 over 2 KV heads.

    With experts, all of them are used, for a router that chooses would flip under rounding.
    """
    model = TinyModel.read(FOLDER / "llama-gqa-tied.gguf")
    vocab, model.tensors = model.keys["llama.vocab_size"][0], {}
    for key, value in {
        "embedding_length": WIDTH,
        "feed_forward_length": FEED_FORWARD,
        "rope.dimension_count": WIDTH // 4,
    }.items():
        model.set(key, value)
    if n_expert:
        model.set("expert_count", n_expert)
        model.set("expert_used_count", n_expert)
    rng = np.random.default_rng(seed)

    def matrix(name: str, *shape: int) -> None:
        model.tensors[name] = rng.normal(0, 1.2 / math.sqrt(shape[-1]), shape).astype(np.float32)

    def norm(name: str) -> None:
        model.tensors[name] = rng.uniform(0.5, 1.5, WIDTH).astype(np.float32)

    matrix("token_embd.weight", vocab, WIDTH)
    matrix("output.weight", vocab, WIDTH)
    norm("output_norm.weight")
    for layer in range(2):
        blk = f"blk.{layer}."
        norm(blk + "attn_norm.weight")
        norm(blk + "ffn_norm.weight")
        for part, rows in {"q": WIDTH, "k": WIDTH // 2, "v": WIDTH // 2, "output": WIDTH}.items():
            matrix(f"{blk}attn_{part}.weight", rows, WIDTH)
        end = "_exps.weight" if n_expert else ".weight"
        stack = (n_expert,) if n_expert else ()
        if n_expert:
            matrix(blk + "ffn_gate_inp.weight", n_expert, WIDTH)
        matrix(blk + "ffn_gate" + end, *stack, FEED_FORWARD, WIDTH)
        matrix(blk + "ffn_up" + end, *stack, FEED_FORWARD, WIDTH)
        matrix(blk + "ffn_down" + end, *stack, WIDTH, FEED_FORWARD)
    return model


def widened(name: str, seed: int) -> TinyModel:
    """A golden model with random weights and every width but the vocabulary's so multiplied that rows are
    whole blocks of every type."""
    model = TinyModel.read(FOLDER / f"{name}.gguf")
    arch = model.keys["general.architecture"][0]
    before = model.keys[f"{arch}.embedding_length"][0]
    vocab, rng = model.tensors["token_embd.weight"].shape[0], np.random.default_rng(seed)
    for key in ("embedding_length", "feed_forward_length", "rope.dimension_count"):
        if f"{arch}.{key}" in model.keys:
            model.set(key, model.keys[f"{arch}.{key}"][0] * WIDTH // before)
    for tensor, x in model.tensors.items():
        shape = [n if n == vocab else n * WIDTH // before for n in x.shape]
        if tensor == "position_embd.weight":
            shape[0] = x.shape[0]
        if x.ndim > 1:
            values = rng.normal(0, 1 / math.sqrt(shape[-1]), shape)
        elif tensor.endswith("bias"):
            values = rng.normal(0, 0.1, shape)
        else:
            values = rng.uniform(0.5, 1.5, shape)
        model.tensors[tensor] = values.astype(np.float32)
    return model


def matrices(model: TinyModel) -> Iterator[str]:
    """Names of the tensors that quantized files hold quantized."""
    for name, tensor in model.tensors.items():
        if tensor.ndim > 1 and "ffn_gate_inp" not in name:
            yield name
