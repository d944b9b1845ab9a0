"""What `ggserve info` tells about a file."""

import json
import math
from pathlib import Path

import gguf
import pytest

import engine
from engine.errors import ConfigError, ModelError
from engine.model.info import describe, render
from support.builders.gguf import F32, I32, STRING, GGUFBuilder, tiny_llama
from support.builders.golden import ENCODERS, FOLDER, NAMES, RANKERS, golden
from support.quick import every

STORIES = Path(__file__).parents[3] / "models" / "stories.gguf"


def test_describe_of_the_bundled_model_has_its_values():
    description = describe(STORIES)
    assert description["problem"] is None
    assert (description["architecture"], description["name"], description["license"]) == (
        "llama",
        "stories",
        "apache-2.0",
    )
    assert (description["n_params"], description["n_tensors"]) == (2_885_888, 38)
    q8, f32 = description["quantization"]["Q8_0"], description["quantization"]["F32"]
    assert list(description["quantization"]) == ["Q8_0", "F32"]
    assert (q8["tensors"], f32["tensors"]) == (29, 9)
    assert q8["bytes"] + f32["bytes"] == description["weight_bytes"]
    assert description["hyperparameters"]["attention.head_count_kv"] == 2
    tokenizer = description["tokenizer"]
    assert (tokenizer["model"], tokenizer["n_tokens"], tokenizer["n_merges"]) == ("gpt2", 2048, 1786)
    assert tokenizer["special"]["eot"] == {"id": 4, "text": "<|end|>"}
    assert tokenizer["chat_template"]
    assert description["metadata"]["tokenizer.ggml.tokens"]["length"] == 2048
    assert "tensors" not in description
    assert "tokens" not in description
    json.dumps(description)


@pytest.mark.parametrize(
    ("context", "kv_type", "per_token"),
    [
        (None, "f16", 4 * 2 * 128 * 2),  # layers, K and V, two heads of 64, bytes
        (100, "f16", 4 * 2 * 128 * 2),
        (100, "f32", 4 * 2 * 128 * 4),
        (100, "q8_0", 4 * 2 * 128 * 34 // 32),
        (100, "q4_0", 4 * 2 * 128 * 18 // 32),
    ],
)
def test_memory_estimate_counts_weights_and_cache(context, kv_type, per_token):
    memory = describe(STORIES, context=context, kv_type=kv_type)["memory"]
    assert memory["context"] == (context or 512)
    assert memory["context_trained"] == 512
    assert memory["kv_per_token"] == per_token
    assert memory["total"] == memory["weights"] + per_token * memory["context"]


def test_memory_of_differing_layers_is_summed(tmp_path):
    b = tiny_llama().key("llama.attention.head_count_kv", [2, 4], I32).key("llama.attention.value_length", 16)
    memory = describe(b.write(tmp_path / "m.gguf"))["memory"]
    assert memory["kv_per_token"] == (2 + 4) * (8 + 16) * 2


def test_memory_of_latents_counts_them_once():
    memory = describe(FOLDER / "deepseek2-lite.gguf", kv_type="f32")["memory"]
    assert memory["kv_per_token"] == 2 * (32 + 32) * 4  # layers, latent and rotated part, bytes
    memory = describe(FOLDER / "glm4moe-norms.gguf")["memory"]  # without its layer for further tokens
    assert memory["kv_per_token"] == 2 * 2 * 16 * 2


def test_memory_of_layers_with_a_window_is_a_bound():
    contents = describe(FOLDER / "gemma3.gguf", context=4096)
    assert 0 < contents["memory"]["window"] < 4096
    assert f"with a window of {contents['memory']['window']} tokens keep less" in render(contents)
    contents = describe(FOLDER / "gemma3.gguf", context=contents["memory"]["window"])
    assert "window" not in contents["memory"]
    assert "at most" not in render(contents)


def test_cache_type_with_larger_blocks_than_heads_is_refused(tmp_path):
    description = describe(tiny_llama().write(tmp_path / "m.gguf"), kv_type="q8_0")
    assert description["memory"]["problem"] == "q8_0 stores blocks of 32, but heads have 8 elements"
    assert "q8_0 stores blocks of 32" in render(description)


def test_unknown_cache_type_is_refused():
    with pytest.raises(ConfigError, match="unknown cache type q9"):
        describe(STORIES, kv_type="q9")


def test_tensors_and_tokens_are_listed_on_request(tmp_path):
    description = describe(tiny_llama(n_vocab=5).write(tmp_path / "m.gguf"), tensors=True, tokens=True)
    assert description["tensors"][0]["name"] == "token_embd.weight"
    assert description["tensors"][0]["shape"] == [32, 5]
    assert len(description["tensors"]) == 20
    assert description["tokens"][:2] == [
        {"id": 0, "text": "<unk>", "type": "unknown", "score": 0.0},
        {"id": 1, "text": "<s>", "type": "control", "score": -1.0},
    ]
    text = render(description)
    assert "  blk.1.ffn_down.weight     F32         8.0 KiB  64 x 32\n" in text
    assert "  3  '▁t0'  -3.0\n" in text


def test_render_shows_the_description(tmp_path):
    text = render(describe(tiny_llama().write(tmp_path / "m.gguf"), context=1000))
    for line in (
        "  architecture  llama",
        "  F32  20 tensors, 76.6 KiB (100.0 %)",
        "  attention.head_count              4",
        "  size           32 tokens",
        "  special        bos 1 '<s>', eos 2 '</s>'",
        "  chat template  no",
        "  context   1000 tokens, trained with 64",
        "  cache     125.0 KiB as f16 (128 B for each token)",
    ):
        assert line in text.splitlines()
    assert "PROBLEM" not in text


def test_render_escapes_control_characters_of_the_file(tmp_path):
    evil = "\x1b[2J\x07\x9b31m\u202eabc\r\n\tx"
    b = tiny_llama(n_vocab=3).key("general.name", evil).key("general.architecture", "llama")
    b.key("general.license", evil).key("evil.list", [evil, evil]).key("tokenizer.ggml.pre", evil)
    b.key("tokenizer.chat_template", evil).key("tokenizer.chat_template.tools", evil)
    b.key("tokenizer.ggml.tokens", [evil, evil, evil]).key("llama.evil", evil)
    path = b.write(tmp_path / "\x1b[31m.gguf")
    description = describe(path, tensors=True, tokens=True)
    text = render(description)
    assert all(line.isprintable() for line in text.split("\n"))
    assert "\\x1b[2J\\x07" in text
    assert description["name"] == evil  # the data itself is not changed


def test_long_values_are_truncated(tmp_path):
    b = tiny_llama().key("x.numbers", list(range(100_000)), I32).key("x.text", "a" * 100_000)
    description = describe(b.write(tmp_path / "m.gguf"))
    assert description["metadata"]["x.numbers"] == {
        "array_of": "int32",
        "length": 100_000,
        "first": list(range(8)),
    }
    assert description["metadata"]["x.text"] == "a" * 8192 + "… (100000 characters)"
    text = render(description)
    assert "100000 x int32: 0, 1, 2, 3, 4, 5, 6, 7, …" in text
    assert max(map(len, text.splitlines())) < 200


def test_models_that_contradict_themselves_are_described(tmp_path):
    b = tiny_llama().key("llama.attention.head_count_kv", 3).key("tokenizer.ggml.bos_token_id", 99)
    description = describe(b.write(tmp_path / "m.gguf"), tokens=True)
    assert description["problem"] == "layer 0 has 4 heads, which 3 key-value heads cannot share evenly"
    assert description["tokenizer"]["special"]["bos"] == {"id": 99, "text": None}
    assert "PROBLEM: layer 0 has 4 heads" in render(description)


def test_nearly_empty_file_is_described(tmp_path):
    description = describe(GGUFBuilder().write(tmp_path / "m.gguf"), tensors=True, tokens=True)
    assert description["problem"] == "key 'general.architecture' is missing"
    assert (
        description["tokenizer"],
        description["memory"],
        description["tokens"],
        description["tensors"],
    ) == (None, None, [], [])
    render(description)


def test_values_that_json_lacks_become_strings(tmp_path):
    b = (
        tiny_llama()
        .key("x.nan", math.nan)
        .key("x.infs", [math.inf, -math.inf], F32)
        .key("x.bad", b"\xff", STRING)
    )
    description = describe(b.write(tmp_path / "m.gguf"))
    assert json.loads(json.dumps(description, allow_nan=False)) == description
    assert description["metadata"]["x.nan"] == "nan"
    assert description["metadata"]["x.infs"] == ["inf", "-inf"]
    assert "  x.bad   (not UTF-8)\n" in render(description)


def test_file_that_is_not_gguf_is_refused(tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(b"<html>")
    with pytest.raises(ModelError, match="a web page"):
        describe(path)


@pytest.mark.parametrize("name", NAMES)
def test_every_architecture_is_described(name: str) -> None:
    description = describe(golden(name).path, context=128)
    assert description["problem"] is None
    assert description["n_params"] > 0
    assert description["quantization"]["F32"]["tensors"] == description["n_tensors"]
    assert description["memory"]["context"] == 128
    assert description["memory"]["total"] > description["weight_bytes"]
    assert f"architecture  {description['architecture']}" in render(description)


@pytest.mark.parametrize("name", every(4, [*NAMES, *ENCODERS, *RANKERS]))
def test_figures_match_those_of_the_loaded_model(name: str) -> None:
    """Parameters, file type, and the cache that a context of 128 takes."""
    path = FOLDER / f"{name}.gguf"
    description = describe(path, context=128)
    shapes = [t.shape for t in gguf.GGUFReader(path).tensors]
    assert description["n_params"] == sum(math.prod(map(int, shape)) for shape in shapes)
    assert description["file_type"] in ("F32 (0)", None)  # llama.cpp's converter leaves it out for a few
    assert ("file type     F32 (0)" in render(description)) == (description["file_type"] is not None)
    params = engine.ModelParameters(use_gpu=False, context_size=128, kv_cells=128, n_threads=1)
    with engine.load(path, params) as model:
        n_cached_bytes = model.cache.nbytes if model.hp.causal else 0
        assert description["memory"]["kv"] == pytest.approx(n_cached_bytes, abs=4096)
        assert ("none: an encoder" in render(description)) == (not model.hp.causal)


@pytest.mark.parametrize(("number", "name"), [(15, "Q4_K_M (15)"), (7, "Q8_0 (7)"), (999, "unknown (999)")])
def test_file_types_have_names(number: int, name: str, tmp_path: Path) -> None:
    description = describe(tiny_llama().key("general.file_type", number).write(tmp_path / "m.gguf"))
    assert description["file_type"] == name
