"""Settings of config.json that change the graph: those that ours does not have are refused by their name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engine
from engine.architectures import gptneox
from engine.convert.converter import convert
from engine.convert.huggingface.baichuan import BaichuanConverter
from engine.errors import UnsupportedModelError
from engine.gguf import GGUFFile
from engine.graph.forward_context import ForwardContext
from support.builders.golden import FOLDER, golden

PARAMS = engine.ModelParameters(use_gpu=False, n_threads=1)
FOLDERS = sorted(path.name for path in (FOLDER / "hf").iterdir())
ACTIVATIONS = ("hidden_act", "hidden_activation", "activation_function", "activation", "mamba_hidden_act")

REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("qwen2", {"use_sliding_window": True}),
    ("qwen3moe", {"use_sliding_window": True}),
    ("qwen3moe", {"norm_topk_prob": False}),
    ("qwen2moe", {"mlp_only_layers": [1]}),
    ("falcon-7b", {"alibi": True}),
    ("falcon-7b", {"bias": True}),
    ("falcon-7b", {"parallel_attn": False}),
    ("bloom", {"apply_residual_connection_post_layernorm": True}),
    ("gpt2", {"scale_attn_weights": False}),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
    ("gptneox", {"hidden_act": "gelu_fast"}),
    ("starcoder", {"multi_query": False}),
    ("starcoder2", {"norm_type": "rms_norm"}),
    ("phi2", {"qk_layernorm": True}),
    ("gemma2", {"layer_types": ["full_attention", "sliding_attention"]}),
    ("gemma3", {"layer_types": ["sliding_attention", "full_attention"] * 3}),
    ("gemma3", {"use_bidirectional_attention": True}),
    ("gpt-oss", {"layer_types": ["full_attention"] * 2}),
    ("gpt-oss", {"swiglu_limit": 5.0}),
    ("smollm3", {"no_rope_layers": [1, 0, 1, 0, 1]}),
    ("smollm3", {"use_sliding_window": True}),
    ("cohere2", {"rotary_pct": 0.5}),
    ("cohere2", {"use_qk_norm": True}),
    ("internlm2", {"bias": True}),
    ("gemma4", {"use_bidirectional_attention": "all"}),
    ("exaone4", {"sliding_window_pattern": "LLG"}),
    ("mpt", {"norm_type": "rmsnorm"}),
    ("mpt", {"logit_scale": "inv_sqrt_d_model"}),
    ("mpt", {"attn_config": {"prefix_lm": True}}),
    ("mpt", {"attn_config": {"rope": True}}),
    ("mpt", {"ffn_config": {"ffn_type": "mptglu"}}),
    ("dbrx", {"ffn_config": {"ffn_act_fn": {"name": "relu"}}}),
    ("deepseek", {"norm_topk_prob": True}),
    ("deepseek2-v3", {"attention_bias": True}),
    ("deepseek2-lite", {"n_group": 2}),
    ("llama4", {"attention_chunk_size": 32}),
    ("llama4", {"moe_layers": [1]}),
    ("phimoe", {"router_jitter_noise": 0.1}),
    ("olmoe", {"clip_qkv": 8.0}),
    ("ernie4_5-moe", {"moe_layer_interval": 2}),
    ("hunyuan-moe", {"moe_topk": [1, 2]}),
    ("minimax-m2", {"qk_norm_type": "per_head"}),
]


def changed(tmp_path: Path, name: str, values: dict[str, Any]) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(FOLDER / "hf" / name, folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return folder


@pytest.mark.parametrize(("name", "values"), REFUSED)
def test_unsupported_setting_is_refused_by_name(name: str, values: dict[str, Any], tmp_path: Path) -> None:
    (setting, value), *_ = values.items()
    if isinstance(value, dict):
        ((inner, _),) = value.items()
        setting = f"{setting}.{inner}"
    with pytest.raises(UnsupportedModelError, match=rf"config.json: .*{setting}.* not supported"):
        convert(changed(tmp_path, name, values), tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()


@pytest.mark.parametrize("name", FOLDERS)
def test_another_activation_is_refused(name: str, tmp_path: Path) -> None:
    config = json.loads((FOLDER / "hf" / name / "config.json").read_text())
    text = config.get("text_config", config)
    stated = [setting for setting in ACTIVATIONS if text.get(setting)]
    if config["model_type"] in (
        "mpt",
        "bloom",
        "lfm2",
        "lfm2_moe",
        "dbrx",
    ):  # there is one only, or elsewhere
        assert not stated
        return
    assert stated
    for setting in stated:
        values = {setting: "relu"}
        if text is not config:
            values = {"text_config": text | values}
        folder = changed(tmp_path / setting, name, values)
        with pytest.raises(UnsupportedModelError, match=f"{setting} is 'relu'.*supported: "):
            convert(folder, tmp_path / "out.gguf")


def test_mpt_with_one_kv_head_is_converted(tmp_path: Path) -> None:
    """Stated by the kind of attention, without a number."""
    folder = changed(tmp_path, "mpt", {"attn_config": {"attn_type": "multiquery_attention"}})
    convert(folder, tmp_path / "out.gguf")
    with GGUFFile.open(tmp_path / "out.gguf") as file:
        assert file.metadata["mpt.attention.head_count_kv"] == 1


def test_largest_gpt_neox_uses_the_tanh_gelu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []
    activate = ForwardContext.activate

    def noted(step: ForwardContext, layer: int, activation: str, *parts: Any) -> Any:
        used.append(activation)
        return activate(step, layer, activation, *parts)

    monkeypatch.setattr(ForwardContext, "activate", noted)
    engine.load(golden("gptneox").path, PARAMS).close()
    assert set(used) == {"gelu_erf"}
    used.clear()
    monkeypatch.setattr(gptneox, "LAYERS_OF_20B", 2)
    engine.load(golden("gptneox").path, PARAMS).close()
    assert set(used) == {"gelu"}
    convert(changed(tmp_path, "gptneox", {"hidden_act": "gelu_fast"}), tmp_path / "out.gguf")


def test_head_of_baichuan_2_is_normalized() -> None:
    head = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)
    for vocab_size, length in ((125696, 1.0), (64000, None)):
        ((_, actual),) = BaichuanConverter.convert_tensor("output.weight", head, {"vocab_size": vocab_size})
        expected = length or np.linalg.norm(head, axis=1)
        np.testing.assert_allclose(np.linalg.norm(actual, axis=1), expected, rtol=1e-6)
