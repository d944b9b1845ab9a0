"""Hugging Face folders become what llama.cpp's converter makes of them (tests/golden/converter.py)."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer

import engine
from engine import architectures
from engine.convert.converter import TYPES, convert
from engine.convert.folder import Folder
from engine.errors import ConfigError, EngineError, ModelError, UnsupportedModelError
from engine.gguf import GGUFFile
from engine.model.file_sampling import file_sampling
from engine.quantize.quantizer import quantize_file
from support.builders.golden import FOLDER
from support.builders.hf_folders import changed, moved, tensors
from support.quick import every

FOLDERS = sorted(path.name for path in (FOLDER / "hf").iterdir())


def keys(path: Path) -> dict[str, Any]:
    with GGUFFile.open(path) as file:
        return {key: file.metadata[key] for key in file.metadata}


def test_every_model_class_has_a_test_folder() -> None:
    assert len(FOLDERS) >= 19


@pytest.mark.parametrize("name", every(12, FOLDERS))
def test_tensors_match_those_of_the_reference(name: str, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    assert convert(FOLDER / "hf" / name, out, "f32") == []
    ours, theirs = tensors(out), tensors(FOLDER / f"{name}.gguf")
    assert ours.keys() == theirs.keys()
    for tensor in theirs:
        assert ours[tensor][:2] == theirs[tensor][:2], tensor
        # llama.cpp's converter computes it in float32, ours in float64; exp of another library
        if tensor == "rope_freqs.weight" or tensor.endswith("ssm_a"):
            numbers = [np.frombuffer(side[tensor][2], np.float32) for side in (ours, theirs)]
            np.testing.assert_allclose(*numbers, rtol=1e-6)
        else:
            assert ours[tensor][2] == theirs[tensor][2], tensor


def test_sampling_recommendations_of_generation_config_are_written(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(FOLDER / "hf" / FOLDERS[0], folder)
    recommended = {
        "temperature": 0.6,
        "top_k": 20,
        "top_p": 1,
        "repetition_penalty": 1.05,
        "do_sample": True,
        "min_p": None,
    }
    (folder / "generation_config.json").write_text(json.dumps(recommended))
    convert(folder, tmp_path / "out.gguf", "f32")
    with GGUFFile.open(tmp_path / "out.gguf") as file:
        values, remarks = file_sampling(file)
    assert values == {"temperature": 0.6, "top_k": 20, "top_p": 1.0, "repeat_penalty": 1.05}
    assert remarks == []


@pytest.mark.parametrize("name", every(6, FOLDERS))
def test_keys_match_those_of_the_reference(name: str, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    convert(FOLDER / "hf" / name, out, "f32")
    ours, theirs = keys(out), keys(FOLDER / f"{name}.gguf")
    arch = theirs["general.architecture"]
    assert ours["general.architecture"] == arch
    for key, value in theirs.items():
        if key.startswith(f"{arch}.") and key not in (f"{arch}.vocab_size", "falcon.context_length"):
            assert ours.get(key) == pytest.approx(value), key
    with GGUFFile.open(out) as a, GGUFFile.open(FOLDER / f"{name}.gguf") as b:
        cls = architectures.get(arch)
        ours_hp, theirs_hp = cls.hparams(a), cls.hparams(b)
        longest = {"nomic-bert": 2048, "hunyuan-dense": 262144}
        endless = ("mamba", "mamba2", "granitehybrid", "nemotron_h", "nemotron_h_moe")
        longest |= dict.fromkeys(endless, 1 << 20)
        assert ours_hp.n_ctx_train == (256 if name == "bamba" else longest.get(arch, 256))
        if arch == "falcon":  # llama.cpp's converter says 2048 for all of them, ours what config.json says
            theirs_hp = dataclasses.replace(theirs_hp, n_ctx_train=256, rope=ours_hp.rope)
        assert ours_hp == theirs_hp


@pytest.mark.parametrize("name", every(12, FOLDERS))
def test_converted_model_runs_with_the_folders_tokenizer(name: str, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    convert(FOLDER / "hf" / name, out, "f16")
    theirs = Tokenizer.from_file(str(FOLDER / "hf" / name / "tokenizer.json"))
    with engine.load(out, engine.ModelParameters(use_gpu=False, context_size=64, n_threads=1)) as model:
        for text in ("the thing in there", "än 12345  y\n", "it's\t!"):
            assert (
                model.tokenizer.encode(text, add_special=False)
                == theirs.encode(text, add_special_tokens=False).ids
            )
        if not model.hp.causal:
            assert np.isfinite(model.embed([2, 5, 9, 3])).all()
            return
        with model.start_session() as session:
            session.feed_prompt([1, 5, 9, 20])
            assert np.isfinite(session.last_logits).all()


@pytest.fixture(scope="module")
def wide_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaMA with rows of whole blocks for every type."""
    folder = tmp_path_factory.mktemp("convert") / "wide"
    shutil.copytree(FOLDER / "hf" / "llama", folder)
    config = json.loads((folder / "config.json").read_text())
    sizes = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 2}
    (folder / "config.json").write_text(json.dumps(config | sizes | {"head_dim": 64}))
    known = {32: 256, 16: 128, 64: 512}
    rng = np.random.default_rng(1)
    created = {}
    for name, source in Folder(FOLDER / "hf" / "llama").tensors.items():
        shape = [known.get(n, n) for n in source.shape]
        if "mlp" in name:
            shape = [256, 512] if "down" in name else [512, 256]
        created[name] = rng.normal(0, 0.1, shape).astype(np.float32)
    save_file(created, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("type", every(12, TYPES))
def test_every_type_equals_quantizing_the_f32_file(type: str, wide_folder: Path, tmp_path: Path) -> None:
    if type.startswith(("iq1", "iq2", "iq3_x", "q2_k_s")):
        with pytest.raises(ConfigError, match=r"--imatrix"):
            convert(wide_folder, tmp_path / "out.gguf", type)
        return
    assert convert(wide_folder, tmp_path / "out.gguf", type) == []
    plain = wide_folder.with_name("f32.gguf")
    convert(wide_folder, plain, "f32", force=True)
    quantize_file(plain, tmp_path / "two.gguf", type)
    assert tensors(tmp_path / "out.gguf") == tensors(tmp_path / "two.gguf")
    ours, theirs = keys(tmp_path / "out.gguf"), keys(tmp_path / "two.gguf")
    assert ours["general.file_type"] == theirs["general.file_type"]


def test_rows_that_are_not_whole_blocks_stay_f16_and_are_named(tmp_path: Path) -> None:
    remarks = convert(FOLDER / "hf" / "gpt2", tmp_path / "out.gguf", "q8_0")
    assert any("tensors are f16: rows are not whole blocks" in remark for remark in remarks)


# --- what is refused


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def garbage(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(b"\xff{")


def index(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"x": "model-00001-of-00002.safetensors"}})
    )


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without("config.json"), "config.json is missing"),
        (without("model.safetensors"), "has no .*safetensors"),
        (without("tokenizer.json"), "neither tokenizer.json nor"),
        (garbage("config.json"), "config.json cannot be read"),
        (garbage("model.safetensors"), "is damaged"),
        (garbage("tokenizer.json"), "tokenizer.json"),
        (cut, "does not fit the file"),
        (index, "00001-of-00002.safetensors is missing"),
        (pickled, "pickled PyTorch"),
    ],
)
def test_damaged_folder_is_refused(damage: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    folder = changed(tmp_path)
    damage(folder)
    with pytest.raises(EngineError, match=message):
        convert(folder, tmp_path / "out.gguf")
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        (
            {"architectures": ["FooForCausalLM"]},
            UnsupportedModelError,
            "FooForCausalLM.*Qwen2ForCausalLM.*CONTRIBUTING",
        ),
        ({"architectures": None}, ModelError, "architectures"),
        ({"hidden_size": None}, ModelError, "hidden_size"),
        (
            {"rope_parameters": {"rope_type": "odd", "rope_theta": 1e4}},
            UnsupportedModelError,
            "rope_type.*odd",
        ),
        ({"use_sliding_window": True}, UnsupportedModelError, "use_sliding_window"),
        ({"architectures": ["BloomForCausalLM"]}, UnsupportedModelError, "are not part of BloomForCausalLM"),
    ],
)
def test_unsupported_configuration_is_refused(
    values: dict[str, Any], kind: type[EngineError], message: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=message):
        convert(changed(tmp_path, **values), tmp_path / "out.gguf")


def test_existing_file_is_replaced_only_with_force(tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    out.write_text("mine")
    with pytest.raises(ConfigError, match="--force"):
        convert(FOLDER / "hf" / "qwen2", out)
    assert out.read_text() == "mine"
    convert(FOLDER / "hf" / "qwen2", out, force=True)
    assert out.read_bytes()[:4] == b"GGUF"


def test_unknown_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown type f17; .*F16"):
        convert(FOLDER / "hf" / "qwen2", tmp_path / "out.gguf", "f17")


def test_layers_that_predict_further_tokens_are_left_out(tmp_path: Path) -> None:
    more = {"model.layers.2.eh_proj.weight": np.ones((2, 4), np.float32)}
    moved(tmp_path / "model", "glm4moe", lambda name: name, **more)
    assert convert(tmp_path / "model", tmp_path / "out.gguf", "f32") == []
    assert tensors(tmp_path / "out.gguf") == tensors(FOLDER / "glm4moe.gguf")


def test_missing_expert_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(FOLDER / "hf" / "qwen3moe", folder)
    raw = (folder / "model.safetensors").read_bytes()
    pattern = rb"layers.0.mlp.experts.1.up_proj"
    assert re.search(pattern, raw)
    (folder / "model.safetensors").write_bytes(raw.replace(pattern, b"layers.0.mlp.experts.7.up_proj"))
    with pytest.raises(ModelError, match="ffn_up_exps"):
        convert(folder, tmp_path / "out.gguf")


MEASURED = """
import resource, sys
from engine.convert.converter import convert
convert(FOLDER / "hf" / "qwen2", sys.argv[2] + ".small", "f16")  # everything imported and warm
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
convert(sys.argv[1], sys.argv[2], "f16")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.exhaustive  # takes seconds
def test_memory_is_a_few_times_the_largest_tensor(tmp_path: Path) -> None:
    width = 1 << 18
    folder = changed(tmp_path, num_hidden_layers=1, intermediate_size=width)
    small = {
        name: t.read()
        for name, t in Folder(folder).tensors.items()
        if ".layers.1." not in name and ".mlp." not in name
    }
    for part, shape in {"gate": (width, 32), "up": (width, 32), "down": (32, width)}.items():
        small[f"model.layers.0.mlp.{part}_proj.weight"] = np.ones(shape, np.float32)
    save_file(small, folder / "model.safetensors")
    script = MEASURED.replace("FOLDER", f"__import__('pathlib').Path({str(FOLDER)!r})")
    command = [sys.executable, "-c", script, str(folder), str(tmp_path / "out.gguf")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=FOLDER.parents[2])
    largest = width * 32 * 4
    assert int(done.stdout) * 1024 < 3 * largest


def test_matrices_of_sentence_transformers_are_part_of_the_model(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(FOLDER / "hf" / "gemma-embedding", folder)
    kinds = ("Transformer", "Pooling", "Dense", "Dense", "Normalize")
    modules = [{"path": f"{i}_{kind}" if i else "", "type": f"x.{kind}"} for i, kind in enumerate(kinds)]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    rng = np.random.default_rng(0)
    matrices = [rng.normal(size=shape).astype(np.float32) for shape in ((24, 16), (16, 24))]
    for name, matrix in zip(("2_Dense", "3_Dense"), matrices, strict=True):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text('{"activation_function": "torch.nn.Identity"}')
        save_file({"linear.weight": matrix}, folder / name / "model.safetensors")
    out = tmp_path / "out.gguf"
    assert convert(folder, out, "f32") == []
    assert keys(out)["gemma-embedding.dense_2_feat_out"] == 24
    assert keys(out)["gemma-embedding.dense_3_feat_in"] == 24
    with engine.load(out) as model, engine.load(FOLDER / "gemma-embedding.gguf") as plain:
        expected = matrices[1] @ matrices[0] @ plain.embed([5, 6, 7], pooling="mean", normalize=False)
        np.testing.assert_allclose(model.embed([5, 6, 7], normalize=False), expected, rtol=1e-3, atol=1e-3)
    (folder / "modules.json").write_text(json.dumps(modules[:3]))
    with pytest.raises(UnsupportedModelError, match="1 modules Dense"):
        convert(folder, tmp_path / "other.gguf")


def test_gguf_package_reads_the_result(tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    convert(FOLDER / "hf" / "llama" if (FOLDER / "hf" / "llama").exists() else FOLDER / "hf" / "qwen2", out)
    assert gguf.GGUFReader(out).tensors
