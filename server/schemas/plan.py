"""POST /v1/plan."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from server.schemas.common import Reply, Schema


class PlanRequest(Schema):
    model: str | None = Field(None, max_length=512, description="a served model; default: the only one")
    file: str | None = Field(
        None, max_length=255, description="another GGUF file in the folder of that model", examples=["b.gguf"]
    )
    use_gpu: bool | Literal["auto"] | None = Field(None, description="default: as the server was started")
    gpu_layers: Annotated[int, Field(ge=0, le=10_000)] | Literal["all", "auto"] | None = None
    device: list[Annotated[str, Field(max_length=64)]] | None = Field(None, max_length=16)
    context_size: Annotated[int, Field(ge=2, le=1 << 26)] | None = None
    parallel: Annotated[int, Field(ge=1, le=1 << 16)] | None = None
    kv_type: Annotated[str, Field(max_length=16)] | None = None


class PlanReply(Reply):
    fits: bool
    problem: str | None = Field(None, description="what does not fit, and what would")
    gpu_layers: int | None = None
    layers: list[str] | None = Field(None, description="the device of each layer, the output's last")
    kv_cells: int | None = None
    devices: dict[str, dict[str, int | str]] | None = Field(None, description="bytes on each device")
    notes: list[str] | None = None
