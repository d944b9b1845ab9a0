"""POST /v1/plan."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from server.api.common.schema import Reply, Schema, field, required

KvType = Literal["f16", "f32", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]
MAX_LAYERS = 10_000


class PlanRequest(Schema):
    model: str | None = field("a served model; default: the only one", "stories", max_length=512)
    file: str | None = field("another GGUF file in the folder of that model", "b.gguf", max_length=255)
    use_gpu: bool | Literal["auto"] | None = field(
        "default for this and the following fields: the server's own options", True
    )
    gpu_layers: Annotated[int, Field(ge=0, le=MAX_LAYERS)] | Literal["all", "auto"] | None = field(
        "number of offloaded layers; the output counts as one more", "all"
    )
    cpu_moe: bool | None = field("keep the experts of all layers on the CPU", True)
    n_cpu_moe: Annotated[int, Field(ge=0, le=MAX_LAYERS)] | None = field(
        "keep the experts of the first N layers on the CPU", None
    )
    override_tensor: list[Annotated[str, Field(max_length=512, pattern=r"^[ -~]+=[ -~]+$")]] | None = field(
        "devices of tensors, by regular expressions that match their names",
        [r"ffn_.*_exps=CPU"],
        max_length=64,
    )
    device: list[Annotated[str, Field(max_length=64, pattern=r"^[ -~]+$")]] | None = field(
        "use only these devices, by their names in `ggserve devices`", ["CUDA0"], max_length=16
    )
    context_size: Annotated[int, Field(ge=2, le=1 << 26)] | None = field(
        "maximum context length, in tokens", 8192
    )
    parallel: Annotated[int, Field(ge=1, le=1024)] | None = field("number of requests decoded together", 8)
    kv_type: KvType | None = field("data type of the KV cache", "q8_0")


class PlanReply(Reply):
    fits: bool = required("whether the model would load", True)
    problem: str | None = field("what does not fit, and what would fit", None)
    gpu_layers: int | None = field("number of offloaded layers", 33)
    cpu_experts: int | None = field("number of layers, from the first, whose experts are on the CPU", 0)
    layers: list[str] | None = field(
        "the device of each layer; the last entry is the output", ["CUDA0", "CUDA0"]
    )
    kv_cells: int | None = field("size of the KV cache in tokens", 65536)
    devices: dict[str, dict[str, int | str]] | None = field(
        "bytes on each device", {"CUDA0": {"weights": 4_100_000_000, "kv": 1_073_741_824}}
    )
    notes: list[str] | None = field(
        "notes on the placement, with reasons", ["the cache is limited by free memory"]
    )
