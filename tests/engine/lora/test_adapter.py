"""What an adapter's file must have, and what it is refused for."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest

import engine
from support.builders.golden import FOLDER, TinyModel
from support.builders.lora import Parts, random_parts, write_adapter

MODEL = FOLDER / "llama.gguf"
Q = "blk.0.attn_q.weight"


def parts(*names: str, rank: int = 4) -> Parts:
    return random_parts(TinyModel.read(MODEL), names or (Q, "blk.1.ffn_down.weight"), rank, 0)


def load(*paths: Path, scale: float = 1.0) -> engine.Model:
    adapters = tuple(engine.LoraAdapter(str(path), scale) for path in paths)
    params = engine.ModelParameters(use_gpu=False, context_size=64, n_threads=1, lora_adapters=adapters)
    return engine.load(MODEL, params)


def keys(path: Path, arch: str = "llama", **values: object) -> Path:
    """An adapter with these keys in place of the sound ones; None leaves one out."""
    writer = gguf.GGUFWriter(str(path), arch)
    entries = {"general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": 1.0}
    for name, value in (entries | {key.replace("__", "."): value for key, value in values.items()}).items():
        if isinstance(value, str):
            writer.add_string(name, value)
        elif isinstance(value, float):
            writer.add_float32(name, value)
        elif value is not None:
            writer.add_array(name, value)
    for end, shape in (("a", (4, 32)), ("b", (32, 4))):
        writer.add_tensor(f"{Q}.lora_{end}", np.zeros(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_the_description_names_the_adapter_with_its_rank_and_scale(tmp_path: Path) -> None:
    first = write_adapter(tmp_path / "one.gguf", "llama", parts(rank=3), alpha=6.0)
    second = keys(tmp_path / "two.gguf", adapter__lora__task_name="sorting", general__name="Two")
    with load(first, second, scale=0.5) as model:
        one, two = model.describe()["lora"]
        assert model.start_session().lora == ((0, 0.5), (1, 0.5))
    assert (one["id"], one["ranks"], one["alpha"], one["scale"]) == (0, [3], 6.0, 0.5)
    assert (two["id"], two["name"], two["task_name"]) == (1, "Two", "sorting")


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        ({"general__type": "model"}, engine.ModelError, "is of type 'model', not a LoRA adapter"),
        ({"general__type": None}, engine.ModelError, "not a LoRA adapter"),
        ({"adapter__type": "ia3"}, engine.UnsupportedModelError, "type 'ia3'; only lora"),
        ({"adapter__type": None}, engine.UnsupportedModelError, "only lora is supported"),
        ({"arch": "qwen2"}, engine.ModelError, "for 'qwen2' models; this one is 'llama'"),
        ({"adapter__alora__invocation_tokens": [1, 2]}, engine.UnsupportedModelError, "aLoRA"),
        ({"adapter__lora__alpha": float("nan")}, engine.ModelError, "adapter.lora.alpha.*must be finite"),
        ({"adapter__lora__alpha": 1e9}, engine.ModelError, "must be at most"),
        ({"adapter__lora__alpha": "1"}, engine.ModelError, "adapter.lora.alpha.*must be a number"),
    ],
)
def test_invalid_keys_are_refused(
    values: dict[str, object], kind: type[Exception], message: str, tmp_path: Path
) -> None:
    path = keys(tmp_path / "lora.gguf", **values)  # type: ignore[arg-type]
    with pytest.raises(kind, match=message):
        load(path)


def without_b(p: Parts) -> None:
    p["x"] = (p[Q][0],)  # type: ignore[assignment]


def renamed(name: str) -> Callable[[Parts], None]:
    def change(p: Parts) -> None:
        p[name] = p.pop(Q)

    return change


def shaped(a: tuple[int, ...], b: tuple[int, ...]) -> Callable[[Parts], None]:
    def change(p: Parts) -> None:
        p[Q] = np.ones(a, np.float32), np.ones(b, np.float32)

    return change


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (renamed("blk.7.attn_q.weight"), engine.ModelError, "adapts 'blk.7.attn_q.weight', which the model"),
        (renamed("output_norm.weight"), engine.UnsupportedModelError, "which is not a matrix of a layer"),
        (renamed("rope_freqs.weight"), engine.UnsupportedModelError, "which is not a matrix of a layer"),
        (shaped((4, 31), (32, 4)), engine.ModelError, r"shape \[31, 4\].*requires \[32, 4\] \(rank 4\)"),
        (shaped((4, 32), (31, 4)), engine.ModelError, r"shape \[4, 31\].*requires \[4, 32\]"),
        (shaped((5, 32), (32, 4)), engine.ModelError, r"requires \[32, 4\] \(rank 4\)"),
        (shaped((32, 4), (4, 32)), engine.ModelError, "requires"),
        (shaped((1, 4, 32), (2, 32, 4)), engine.ModelError, "requires"),
        (without_b, engine.ModelError, "'x.lora_b' is missing; it belongs to 'x.lora_a'"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_name(
    change: Callable[[Parts], None], kind: type[Exception], message: str, tmp_path: Path
) -> None:
    changed = parts()
    change(changed)
    writer = gguf.GGUFWriter(str(tmp_path / "lora.gguf"), "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    for name, both in changed.items():
        for end, x in zip("ab", both, strict=False):
            writer.add_tensor(f"{name}.lora_{end}", x)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(kind, match=message):
        load(tmp_path / "lora.gguf")


def test_a_tensor_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = write_adapter(tmp_path / "lora.gguf", "llama", parts())
    path.write_bytes(path.read_bytes().replace(f"{Q}.lora_a".encode(), f"{Q}.dora_m".encode()))
    with pytest.raises(engine.UnsupportedModelError, match=r"attn_q\.weight\.dora_m.*lora_a, \.lora_b"):
        load(path)


def test_a_type_that_the_converter_does_not_write_is_refused(tmp_path: Path) -> None:
    path = write_adapter(tmp_path / "lora.gguf", "llama", parts(rank=32), type="Q4_0")
    with pytest.raises(
        engine.UnsupportedModelError, match="has type Q4_0; adapters have F32, F16, BF16, Q8_0"
    ):
        load(path)


def test_model_in_place_of_an_adapter_or_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(engine.ModelError, match="is of type 'model'"):
        load(MODEL)
    with pytest.raises(engine.ModelError, match=r"none\.gguf: cannot be opened: No such file"):
        load(tmp_path / "none.gguf")


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        (((1, 1.0),), "no LoRA adapter 1; the model has 1, numbered from 0"),
        (((-1, 1.0),), "no LoRA adapter -1"),
        (((0, 1.0), (0, 2.0)), "adapter 0 is named twice"),
        (((0, float("nan")),), "scale of LoRA adapter 0 is nan"),
        (((0, 1001.0),), "scale of LoRA adapter 0 is 1001"),
    ],
)
def test_a_session_with_impossible_adapters_is_refused(
    lora: tuple[tuple[int, float], ...], message: str, tmp_path: Path
) -> None:
    with load(write_adapter(tmp_path / "lora.gguf", "llama", parts())) as model:
        with pytest.raises(engine.ConfigError, match=message):
            model.start_session(engine.InferenceSessionConfig(lora=lora))
        scheduler = model.scheduler()
        with pytest.raises(engine.ConfigError, match=message):
            scheduler.submit(engine.Request(id="x", prompt=[1, 5], lora=lora))
        assert not scheduler.has_work


def test_too_many_adapters_are_refused(tmp_path: Path) -> None:
    path = write_adapter(tmp_path / "lora.gguf", "llama", parts())
    with pytest.raises(engine.ConfigError, match="65 LoRA adapters; at most 64"):
        load(*[path] * 65)


N_DAMAGED = 300
CHILD = """
import sys
from pathlib import Path
import engine
from support.builders.mutations import Workfile, mutations

model, data = sys.argv[1], Path(sys.argv[2]).read_bytes()
outcomes = {"refused": 0, "ran": 0}
with_adapter = dict(use_gpu=False, n_threads=1, kv_cells=64, context_size=64, max_batch_tokens=16, parallel=1)
work = Workfile(Path(sys.argv[3]), data)
for mutation in mutations(data, int(sys.argv[4]), seed=3):
    print(mutation, flush=True)
    with work.damaged(mutation) as path:
        try:
            lora = (engine.LoraAdapter(str(path)),)
            with engine.load(model, engine.ModelParameters(**with_adapter, lora_adapters=lora)) as loaded:
                with loaded.start_session() as session:
                    session.feed_prompt([1, 5, 6])
        except engine.EngineError as error:
            assert "\\n" not in str(error)
            outcomes["refused"] += 1
        else:
            outcomes["ran"] += 1
print("done", outcomes["refused"], outcomes["ran"])
"""


@pytest.mark.e2e
def test_damaged_adapter_is_refused_or_runs_without_a_crash(tmp_path: Path) -> None:
    path = write_adapter(tmp_path / "lora.gguf", "llama", parts(), alpha=2.0)
    work = tmp_path / "work"
    work.mkdir()
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(MODEL), str(path), str(work / "lora.gguf"), str(N_DAMAGED)],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert child.returncode == 0, f"after {child.stdout.splitlines()[-1:]}: {child.stderr[-2000:]}"
    word, refused, ran = child.stdout.splitlines()[-1].split()
    assert (word, int(refused) + int(ran)) == ("done", N_DAMAGED)
    assert int(refused) > 50
    assert int(ran) > 0
