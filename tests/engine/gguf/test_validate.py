"""Sound containers whose contents contradict themselves."""

import math
import struct

import pytest

from engine.errors import ModelError
from engine.gguf import GGUFFile, validate_model, validate_tokenizer
from engine.gguf.validate import token_ids
from support.builders.gguf import ARRAY, F32, F64, I32, STRING, U8, U32, U64, GGUFBuilder, tiny_llama


def reason(tmp_path, b: GGUFBuilder) -> str:
    path = b.write(tmp_path / "m.gguf")
    with GGUFFile.open(path) as gguf, pytest.raises(ModelError) as caught:
        validate_model(gguf)
    message = str(caught.value)
    assert message.isprintable()
    return message.removeprefix(f"{path}: ")


def accepted(tmp_path, b: GGUFBuilder) -> None:
    with GGUFFile.open(b.write(tmp_path / "m.gguf")) as gguf:
        validate_model(gguf)


def test_model_of_the_builder_is_valid(tmp_path):
    accepted(tmp_path, tiny_llama())


@pytest.mark.parametrize(
    "key",
    [
        "general.architecture",
        "llama.block_count",
        "llama.context_length",
        "llama.embedding_length",
        "llama.attention.head_count",
        "tokenizer.ggml.model",
        "tokenizer.ggml.tokens",
    ],
)
def test_validate_without_a_required_key_names_it(tmp_path, key):
    assert reason(tmp_path, tiny_llama().drop(key)) == f"key '{key}' is missing"


@pytest.mark.parametrize(
    "key",
    [
        "llama.feed_forward_length",
        "llama.attention.head_count_kv",
        "llama.rope.dimension_count",
        "llama.rope.freq_base",
        "llama.vocab_size",
        "tokenizer.ggml.scores",
        "tokenizer.ggml.token_type",
        "tokenizer.ggml.bos_token_id",
    ],
)
def test_validate_without_an_optional_key_passes(tmp_path, key):
    accepted(tmp_path, tiny_llama().drop(key))


@pytest.mark.parametrize("arch", ["", "../llama", "a b", "\x1b[2J", "x" * 65])
def test_invalid_architecture_name_is_refused(tmp_path, arch):
    assert "which is not a valid architecture name" in reason(
        tmp_path, tiny_llama().key("general.architecture", arch)
    )


@pytest.mark.parametrize("kind", ["adapter", "mmproj", "imatrix"])
def test_file_that_is_not_a_model_is_refused(tmp_path, kind):
    b = tiny_llama().key("general.type", kind)
    assert reason(tmp_path, b) == f"is of type '{kind}', not a model that can be served alone"


WRONG_TYPES = [("x", STRING), (1.5, F32), (True, None), ([1, 2], U32)]


@pytest.mark.parametrize("key", ["block_count", "context_length", "embedding_length", "expert_count"])
@pytest.mark.parametrize(("value", "kind"), WRONG_TYPES)
def test_integer_of_a_wrong_type_is_refused(tmp_path, key, value, kind):
    b = tiny_llama().key(f"llama.{key}", value, kind)
    assert reason(tmp_path, b).endswith("; it must be an integer")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("attention.layer_norm_rms_epsilon", "x"),
        ("attention.layer_norm_rms_epsilon", 0),
        ("attention.layer_norm_rms_epsilon", [1e-5]),
        ("rope.freq_base", "x"),
        ("rope.scaling.factor", [1.0, 2.0]),
        ("rope.scaling.type", 1),
        ("attention.head_count", "x"),
        ("attention.head_count", 1.5),
    ],
)
def test_value_of_a_wrong_type_is_refused(tmp_path, key, value):
    assert reason(tmp_path, tiny_llama().key(f"llama.{key}", value)).startswith(f"key 'llama.{key}' is ")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("block_count", 0),
        ("block_count", 4097),
        ("block_count", 1 << 63),
        ("context_length", 0),
        ("context_length", 1 << 40),
        ("embedding_length", 0),
        ("embedding_length", (1 << 64) - 1),
        ("attention.head_count", 0),
        ("attention.head_count", 1 << 32),
        ("attention.head_count_kv", 0),
        ("attention.key_length", 0),
        ("attention.value_length", 1 << 20),
        ("rope.dimension_count", 0),
        ("rope.dimension_count", 7),
        ("rope.dimension_count", 10),  # the head has 8
        ("expert_count", 5000),
        ("attention.sliding_window", 1 << 60),
        ("feed_forward_length", 1 << 40),
        ("rope.scaling.original_context_length", 1 << 40),
        ("attention.temperature_length", 0),
        ("attention.temperature_length", 1 << 40),
    ],
)
def test_integer_out_of_range_is_refused(tmp_path, key, value):
    assert f"key 'llama.{key}' is {value}; " in reason(tmp_path, tiny_llama().key(f"llama.{key}", value, U64))


@pytest.mark.parametrize("kind", [F32, F64])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("attention.layer_norm_rms_epsilon", 0.0),
        ("attention.layer_norm_rms_epsilon", -0.5),
        ("attention.layer_norm_rms_epsilon", 2.0),
        ("attention.layer_norm_rms_epsilon", math.nan),
        ("attention.layer_norm_epsilon", 0.0),
        ("rope.freq_base", 0.0),
        ("rope.freq_base", -1.0),
        ("rope.freq_base", math.inf),
        ("rope.scaling.factor", -2.0),
        ("rope.scaling.factor", math.nan),
        ("any.other.number", math.nan),
        ("attention.clamp_kqv", -math.inf),
    ],
)
def test_float_out_of_range_is_refused(tmp_path, key, value, kind):
    assert f"key 'llama.{key}' is {value}; " in reason(
        tmp_path, tiny_llama().key(f"llama.{key}", value, kind)
    )


def test_heads_that_do_not_share_evenly_are_refused(tmp_path):
    b = tiny_llama().key("llama.attention.head_count_kv", 3)
    assert reason(tmp_path, b) == "layer 0 has 4 heads, which 3 key-value heads cannot share evenly"


def test_heads_are_checked_for_each_layer(tmp_path):
    accepted(tmp_path, tiny_llama().key("llama.attention.head_count_kv", [2, 4], I32))
    b = tiny_llama().key("llama.attention.head_count_kv", [2, 3], I32)
    assert reason(tmp_path, b) == "layer 1 has 4 heads, which 3 key-value heads cannot share evenly"
    b = tiny_llama().key("llama.attention.head_count", [4, 4, 4], I32)
    assert reason(tmp_path, b) == "key 'llama.attention.head_count' has 3 elements; expected 2"
    b = tiny_llama().key("llama.attention.head_count", [4, -4], I32)
    assert reason(tmp_path, b) == "key 'llama.attention.head_count' is -4; it must be at least 1"


def test_validate_of_an_impossible_head_size_is_refused(tmp_path):
    b = tiny_llama().key("llama.attention.head_count", 5).key("llama.attention.head_count_kv", 5)
    assert reason(tmp_path, b) == "5 heads do not divide the width 32, and there is no key_length"
    accepted(tmp_path, b.key("llama.attention.key_length", 8).key("llama.attention.value_length", 8))
    b.key("llama.attention.key_length", 4)
    assert "it must be even, at most 4" in reason(tmp_path, b)


@pytest.mark.parametrize(
    ("count", "used", "message"),
    [
        (4, 5, "5 experts are used for a token, but there are 4"),
        (0, 1, "1 experts are used for a token, but there are 0"),
        (4, 0, "there are 4 experts, but none is used for a token"),
    ],
)
def test_validate_of_impossible_experts_is_refused(tmp_path, count, used, message):
    b = tiny_llama().key("llama.expert_count", count).key("llama.expert_used_count", used)
    assert reason(tmp_path, b) == message
    accepted(tmp_path, tiny_llama().key("llama.expert_count", 4).key("llama.expert_used_count", 4))


def test_embedding_that_contradicts_the_header_is_refused(tmp_path):
    b = tiny_llama(n_vocab=32)
    b.key("tokenizer.ggml.tokens", ["a", "b", "c"]).drop("tokenizer.ggml.scores").drop(
        "tokenizer.ggml.token_type"
    )
    expected = "tensor 'token_embd.weight' has shape [32, 32]; the header requires [32, 3]"
    assert reason(tmp_path, b) == expected
    assert "the header requires [64, 32]" in reason(tmp_path, tiny_llama().key("llama.embedding_length", 64))


@pytest.mark.parametrize("name", ["scores", "token_type"])
@pytest.mark.parametrize("n", [0, 31, 33])
def test_token_array_of_another_length_is_refused(tmp_path, name, n):
    b = tiny_llama().key(f"tokenizer.ggml.{name}", [1] * n, F32 if name == "scores" else I32)
    assert (
        reason(tmp_path, b)
        == f"key 'tokenizer.ggml.{name}' has {n} elements, but the vocabulary has 32 tokens"
    )
    b.key(f"tokenizer.ggml.{name}", 1)
    assert (
        reason(tmp_path, b) == f"key 'tokenizer.ggml.{name}' has no array, but the vocabulary has 32 tokens"
    )


@pytest.mark.parametrize(
    ("key", "value", "kind", "message"),
    [
        ("tokens", [1, 2], U32, "must be an array of strings"),
        ("tokens", "text", STRING, "must be an array of strings"),
        ("tokens", [], STRING, "has 0 tokens; expected 1 to"),
        ("tokens", ["a", b"\xff"], STRING, "is not UTF-8 at index 1"),
        ("tokens", ["a" * 70_000], STRING, "has a token of 70000 characters"),
        ("scores", ["a"] * 32, STRING, "must be a number"),
        ("scores", [math.nan] * 32, F32, "it must be finite"),
        ("token_type", [1.0] * 32, F32, "must be an integer"),
        ("token_type", [1] * 31 + [7], I32, "has the unknown type 7 at index 31"),
        ("token_type", [1] * 31 + [-1], I32, "has the unknown type -1 at index 31"),
        ("merges", [1, 2], U8, "must be an array of strings"),
        ("merges", "a b", STRING, "must be an array of strings"),
        ("bos_token_id", 32, U32, "the special token bos has id 32, but the vocabulary has 32 tokens"),
        ("eos_token_id", -2, I32, "the special token eos has id -2"),
        ("fim_pre_token_id", 1 << 31, U32, "the special token fim_pre has id 2147483648"),
        ("eot_token_id", "x", STRING, "must be an integer"),
        ("eot_token_id", 1.0, F32, "must be an integer"),
        ("add_bos_token", 1, U32, "must be a bool"),
        ("add_space_prefix", "true", STRING, "must be a bool"),
        ("model", 3, U32, "must be a string"),
        ("pre", 3, U32, "must be a string"),
    ],
)
def test_validate_of_an_invalid_tokenizer_key_is_refused(tmp_path, key, value, kind, message):
    assert message in reason(tmp_path, tiny_llama().key(f"tokenizer.ggml.{key}", value, kind))


def test_chat_template_that_is_not_text_is_refused(tmp_path):
    b = tiny_llama().raw("tokenizer.chat_template", struct.pack("<IIQ", ARRAY, STRING, 0))
    assert "must be a string" in reason(tmp_path, b)


@pytest.mark.parametrize(("value", "kind"), [(-1, I32), ((1 << 32) - 1, U32)])
def test_tokens_declared_absent_are_accepted(tmp_path, value, kind):
    b = tiny_llama().key("tokenizer.ggml.padding_token_id", value, kind)
    with GGUFFile.open(b.write(tmp_path / "m.gguf")) as gguf:
        assert validate_tokenizer(gguf) == 32
        assert token_ids(gguf) == {"bos": 1, "eos": 2}


def test_model_without_vocabulary_is_valid(tmp_path):
    b = tiny_llama().key("tokenizer.ggml.model", "no_vocab").drop("tokenizer.ggml.tokens")
    with GGUFFile.open(b.write(tmp_path / "m.gguf")) as gguf:
        validate_model(gguf)
        assert validate_tokenizer(gguf) == 0
