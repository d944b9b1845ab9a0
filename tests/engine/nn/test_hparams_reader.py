"""Hyperparameters: typed reads, values refused by their key, and what follows where no key says it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine import architectures as arch
from engine.errors import ModelError, UnsupportedModelError
from engine.gguf import GGUFFile
from engine.hparams import Routing
from engine.nn.hparams_reader import HParamsReader
from support.builders.gguf import BOOL, I32, GGUFBuilder

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
def test_score_scale_follows_the_size_of_the_model(
    name: str, published: tuple[int, ...], tmp_path: Path
) -> None:
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


@pytest.fixture
def reader(tmp_path: Path) -> Callable[..., HParamsReader]:
    """A reader of a file with these keys of the architecture `x`; dots are written as two underscores."""

    def read(**keys: Any) -> HParamsReader:
        builder = GGUFBuilder().key("general.architecture", "x")
        for name, value in {"context_length": 512, **keys}.items():
            kind = None if not isinstance(value, list) else BOOL if isinstance(value[0], bool) else I32
            builder.key(f"x.{name.replace('__', '.')}", value, kind)
        with GGUFFile.open(builder.write(tmp_path / "x.gguf")) as file:
            return HParamsReader(file, "x")

    return read


Read = Callable[..., HParamsReader]


def test_per_layer_repeats_one_number_for_all_layers(reader: Read) -> None:
    assert reader(n=3).per_layer("n", 4) == (3, 3, 3, 3)
    assert reader(n=[1, 2]).per_layer("n", 2) == (1, 2)
    assert reader().per_layer("n", 2, (5, 6)) == (5, 6)


def test_per_layer_with_another_number_of_values_is_refused(reader: Read) -> None:
    with pytest.raises(ModelError, match=r"x\.n has 2 values for 3 layers"):
        reader(n=[1, 2]).per_layer("n", 3)
    with pytest.raises(ModelError, match=r"x\.n' is missing"):
        reader().per_layer("n", 3)


def test_multi_token_prediction_layers_are_not_counted(reader: Read) -> None:
    read = reader(block_count=3, nextn_predict_layers=1, n=[4, 5, 6])
    assert read.n_layer() == 2
    assert read.per_layer("n", 2) == (4, 5)
    with pytest.raises(UnsupportedModelError, match="nextn_predict_layers is 3"):
        reader(block_count=3, nextn_predict_layers=3).n_layer()


def test_routing_of_the_usual_keys(reader: Read) -> None:
    assert reader().routing() == Routing(renormalise=False)
    assert reader().routing("sigmoid", renormalise=True) == Routing(weights="sigmoid", judged_by=2)
    selected = reader(expert_gating_func=2, expert_weights_norm=True, expert_weights_scale=2.5).routing()
    assert selected == Routing(weights="sigmoid", scale=2.5, judged_by=2)
    groups = reader(expert_count=8, expert_group_count=4, expert_group_used_count=2).routing()
    assert (groups.n_groups, groups.n_groups_used, groups.judged_by) == (4, 2, 1)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"expert_gating_func": 4}, "expert_gating_func is 4"),
        ({"expert_count": 9, "expert_group_count": 4}, "expert_group_count is 4"),
        ({"expert_count": 8, "expert_group_count": 8}, "expert_group_count is 8"),
        (
            {"expert_count": 8, "expert_group_count": 2, "expert_group_used_count": 3},
            "expert_group_count is 2",
        ),
    ],
)
def test_routing_of_another_kind_is_refused_by_its_key(
    reader: Read, keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        reader(**keys).routing()


def test_windows_follow_the_pattern_of_the_file_before_that_of_the_architecture(reader: Read) -> None:
    keys = {"attention__sliding_window": 8}
    assert reader(**keys).windows(4) == (8, 8, 8, 8)
    assert reader(**keys).windows(4, pattern=2) == (8, 0, 8, 0)
    assert reader(**keys, attention__sliding_window_pattern=3).windows(4, pattern=2) == (8, 8, 0, 8)
    flags = [False, True, True, False]
    assert reader(**keys, attention__sliding_window_pattern=flags).windows(4) == (0, 8, 8, 0)
    assert reader().windows(2, default=16) == (16, 16)


def test_shared_keys_and_values_match_those_of_the_last_layer_of_the_same_kind(reader: Read) -> None:
    windows = (8, 0, 8, 8, 0, 8)
    assert reader(attention__shared_kv_layers=2).kv_sources(windows) == (0, 1, 2, 3, 1, 3)
    assert reader().kv_sources(windows, 0) == (0, 1, 2, 3, 4, 5)


@pytest.mark.parametrize("n", [5, 6, 7])  # with 5, no layer without a window is left to read
def test_shared_keys_and_values_of_no_layer_are_refused(n: int, reader: Read) -> None:
    with pytest.raises(ModelError, match=f"shared_kv_layers is {n}"):
        reader(attention__shared_kv_layers=n).kv_sources((8, 0, 8, 8, 0, 8))


def test_windows_with_flags_for_other_layers_are_refused(reader: Read) -> None:
    with pytest.raises(ModelError, match="has 3 elements; expected 4"):
        reader(attention__sliding_window=8, attention__sliding_window_pattern=[True] * 3).windows(4)


def test_rope_of_the_usual_keys_is_unscaled_linear_or_yarn(reader: Read) -> None:
    plain = reader(rope__freq_base=5e5).rope("neox", 8)
    assert (plain.freq_base, plain.freq_scale, plain.n_ctx_orig, plain.ext_factor) == (5e5, 1.0, 512, 0.0)
    linear = reader(rope__scaling__factor=4.0).rope("neox", 8)
    assert (linear.freq_scale, linear.ext_factor) == (0.25, 0.0)
    assert reader(rope__scale_linear=2.0).rope("neox", 8).freq_scale == 0.5
    yarn = reader(
        rope__scaling__type="yarn", rope__scaling__factor=4.0, rope__scaling__original_context_length=128
    ).rope("neox", 8)
    assert (yarn.freq_scale, yarn.ext_factor, yarn.n_ctx_orig, yarn.attn_factor) == (0.25, 1.0, 128, 1.0)
    off = reader(rope__scaling__type="none", rope__scaling__factor=4.0).rope("neox", 8)
    assert off.freq_scale == 1.0


@pytest.mark.parametrize(
    ("keys", "n_dims", "message"),
    [
        ({}, 7, r"x\.rope\.dimension_count is 7.*even numbers"),
        ({}, 0, r"x\.rope\.dimension_count is 0"),
        ({"rope__scaling__type": "longrope"}, 8, r"x\.rope\.scaling\.type is 'longrope'.*none, linear, yarn"),
        ({"rope__scaling__yarn_log_multiplier": 0.5}, 8, r"yarn_log_multiplier is 0\.5.*absent"),
    ],
)
def test_rope_of_another_kind_is_refused_by_its_key(
    reader: Read, keys: dict[str, Any], n_dims: int, message: str
) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        reader(**keys).rope("neox", n_dims)


@pytest.mark.parametrize(
    ("value", "supported", "works"),
    [
        (True, True, True),
        (False, True, False),
        (0, 0, True),
        (2, 0, False),
        (0.5, 1.0, False),
        ("a", "a", True),
    ],
)
def test_only_accepts_the_supported_value_or_none(
    reader: Read, value: Any, supported: Any, works: bool
) -> None:
    reader().only("k", supported)
    if works:
        reader(k=value).only("k", supported)
        return
    with pytest.raises(UnsupportedModelError, match=rf"x\.k is {value!r}"):
        reader(k=value).only("k", supported)


SSM = {
    "ssm__inner_size": 64,
    "ssm__state_size": 16,
    "ssm__time_step_rank": 8,
    "ssm__group_count": 2,
    "ssm__conv_kernel": 4,
}


def test_ssm_has_the_convolution_over_x_b_and_c(reader: Read) -> None:
    shape = reader(**SSM).ssm()
    assert (shape.channels, shape.n_head, shape.head_dim, shape.d_state) == (64 + 2 * 2 * 16, 8, 8, 16)
    assert shape.size == 3 * 128 + 64 * 16
    shape = reader(**SSM).ssm_of_channels()
    assert (shape.channels, shape.n_head, shape.head_dim, shape.dt_rank) == (64, 64, 1, 8)
    assert shape.size == 3 * 64 + 64 * 16


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"ssm__inner_size": 60}, "do not fit together"),
        ({"ssm__group_count": 3}, "do not fit together"),
        ({"ssm__time_step_rank": 0}, "do not fit together"),
        ({"ssm__conv_kernel": 1}, "ssm.conv_kernel is 1.*2 to 8"),
        ({"ssm__conv_kernel": 9}, "ssm.conv_kernel is 9.*2 to 8"),
        ({"ssm__state_size": 2048}, "ssm.state_size is 2048.*up to 1024"),
    ],
)
def test_ssm_refuses_sizes_that_no_kernel_has(reader: Read, changed: dict[str, int], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        reader(**SSM | changed).ssm()


def test_linear_attention_follows_the_file_or_all_but_each_nth_layer(reader: Read) -> None:
    read = reader(block_count=3, attention__recurrent_layers=[True, False, True])
    assert read.linear_attention(3, 4) == (True, False, True)
    assert read.linear_attention(2, 4) == (True, False)
    assert reader(block_count=5).linear_attention(5, 4) == (True, True, True, False, True)
    read = reader(block_count=3, full_attention_interval=2)
    assert read.linear_attention(3, 4) == (True, False, True)
    with pytest.raises(UnsupportedModelError, match="full_attention_interval is 0"):
        reader(block_count=3, full_attention_interval=0).linear_attention(3, 4)
