"""Hugging Face folders of Mamba 2."""

from typing import Any

from engine.convert.huggingface.base import Array, Config, Converted, Converter
from engine.convert.huggingface.keys import first, refuse
from engine.convert.huggingface.mamba import MambaConverter, convert_ssm_tensor, sizes


class Mamba2Converter(Converter):
    architecture = "mamba2"
    model_classes = ("Mamba2ForCausalLM",)
    supported_settings = MambaConverter.supported_settings | {
        "norm_before_gate": (False,),
        "rms_norm": (True,),
    }
    tensor_names = {
        name: target
        for name, target in MambaConverter.tensor_names.items()
        if target not in ("blk.{i}.ssm_x", "blk.{i}.ssm_dt")
    } | {
        "backbone.layers.{i}.mixer.dt_bias": "blk.{i}.ssm_dt.bias",
        "backbone.layers.{i}.mixer.norm": "blk.{i}.ssm_norm",
    }

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        check_time_steps(config)
        head_dim = int(first(config, "head_dim", default=64))
        return sizes(config) | {
            "ssm.inner_size": inner_size(config),
            "ssm.state_size": int(first(config, "state_size", "d_state", default=128)),
            "ssm.time_step_rank": inner_size(config) // head_dim,
            "ssm.group_count": int(first(config, "n_groups", default=1)),
        }

    @classmethod
    def convert_tensor(cls, name: str, x: Array, config: Config) -> Converted:
        return convert_ssm2_tensor(name, x, int(first(config, "n_groups", default=1)))


def check_time_steps(config: Config) -> None:
    """Refuse limits on the time steps, for which there is no key."""
    low, high = config.get("time_step_limit") or (0.0, "Infinity")
    high = high["__float__"] if isinstance(high, dict) else high
    if float(low) != 0 or float(high) != float("inf"):
        refuse("time_step_limit", [low, high], "0 to infinity")


def inner_size(config: Config) -> int:
    n_embd = int(first(config, "hidden_size", "d_model", "dim"))
    return int(first(config, "expand", default=2)) * n_embd


def convert_ssm2_tensor(name: str, x: Array, n_groups: int) -> Converted:
    """As for Mamba, with A and D as columns, and the norm in groups."""
    if name.endswith(("ssm_a.weight", "ssm_d.weight")):
        x = x[:, None]
    elif name.endswith("ssm_norm.weight"):
        x = x.reshape(n_groups, -1)
    return convert_ssm_tensor(name, x)
