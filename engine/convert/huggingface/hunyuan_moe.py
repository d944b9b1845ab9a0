"""Hugging Face folders of Hunyuan-A13B."""

from typing import Any

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Config
from engine.convert.huggingface.hunyuan_dense import HunyuanDenseConverter
from engine.convert.huggingface.names import experts, shared_experts


def same(config: Config, name: str, default: int) -> int:
    """A setting that is one number, or a list with the same number for each layer."""
    value = config.get(name, default)
    values = {int(n) for n in value} if isinstance(value, list) else {int(value)}
    if len(values) != 1:
        keys.refuse(name, value, "the same number for each layer")
    return values.pop()


class HunyuanMoEConverter(HunyuanDenseConverter):
    architecture = "hunyuan-moe"
    model_classes = ("HunYuanMoEV1ForCausalLM",)
    tensor_names = (
        HunyuanDenseConverter.tensor_names
        | experts("mlp", "gate_proj", "up_proj", "down_proj", "gate.wg")
        | shared_experts("mlp.shared_mlp")
    )
    supported_settings = HunyuanDenseConverter.supported_settings | {"attention_bias": (False,)}

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        width = int(config["intermediate_size"])
        return super().convert_keys(config | {"moe_intermediate_size": None}) | {
            "expert_used_count": same(config, "moe_topk", 1),
            "expert_shared_count": same(config, "num_shared_expert", 1),
            "expert_shared_feed_forward_length": width,
            "expert_feed_forward_length": same(config, "moe_intermediate_size", width),
        }
