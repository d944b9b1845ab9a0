"""POST /v1/plan: whether a model would fit, and where each layer would go, without loading anything."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from fastapi import Response
from pydantic import Field

from server.api.common.requests.parser import check_fields
from server.api.common.schema import Reply, Schema, field, required
from server.dependencies import ContextDep
from server.errors import ApiError, bad_request, wrong
from server.generation.request_context import RequestContext
from server.http.json_reply import json_reply
from server.http.json_route import json_router

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


router = json_router()
TIMEOUT_S = 60.0
MAX_PROCESSES = 2  # each takes a second of the processor and opens the devices
_turns = asyncio.Semaphore(MAX_PROCESSES)
_OPTIONS = ("use_gpu", "gpu_layers", "cpu_moe", "n_cpu_moe", "context_size", "parallel", "kv_type")
_LISTS = ("override_tensor", "device")  # options that may be repeated
_FLAG = re.compile("--((?:{})(?![a-z-]))".format("|".join(_OPTIONS + _LISTS).replace("_", "-")))


@router.post("/v1/plan", response_model=None, responses={200: {"model": PlanReply}})
async def plan(body: PlanRequest, context: ContextDep) -> Response:
    """Plan the placement of a model, as `ggserve info --plan` does. It runs in a separate process, since this
    one never touches a device.
    """
    path, settings = _path(body, context), context.state.settings
    command = [sys.executable, "-m", "server", "info", str(path), "--plan", "--json"]
    for name, value in _options(body, context).items():
        if value is not None:
            command.append(f"--{name.replace('_', '-')}={str(value).lower()}")
    for name in _LISTS:
        values = getattr(body, name)
        for value in getattr(settings, name) if values is None else values:
            command.append(f"--{name.replace('_', '-')}={value}")
    if _turns.locked():
        raise ApiError(429, "other plans are being made; try again later", code="plan_busy", retry_after=2)
    async with _turns:
        out, err = await _run(command)
    try:
        result = msgspec.json.decode(out)
    except msgspec.DecodeError:
        raise _refusal(err.decode(errors="replace"), path) from None
    check_fields(body, context)
    return json_reply(result, context)


async def _run(command: list[str]) -> tuple[bytes, bytes]:
    """The stdout and stderr of a command."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        return await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    except TimeoutError:
        raise ApiError(503, "the devices did not answer in time", code="plan_timeout") from None
    finally:
        if process.returncode is None:
            process.kill()


def _options(body: PlanRequest, context: RequestContext) -> dict[str, Any]:
    """The request's options, or else the server's."""
    options = {name: getattr(body, name) for name in _OPTIONS}
    # Each of these contradicts the other, also where that one is the server's.
    if body.n_cpu_moe is None and body.cpu_moe:
        options |= {"cpu_moe": False, "n_cpu_moe": MAX_LAYERS}
    elif body.n_cpu_moe is not None and body.cpu_moe is None:
        options["cpu_moe"] = False
    settings = context.state.settings
    return {name: getattr(settings, name) if value is None else value for name, value in options.items()}


def _refusal(stderr: str, path: Path) -> ApiError:
    """The last line of the command's output, without the folder, and the field that it concerns."""
    line = (stderr.strip().splitlines() or ["the plan failed"])[-1]
    text = line.removeprefix("ggserve: ").removeprefix("ggserve info: ").replace(str(path), path.name)
    text = text.partition(" (see ggserve")[0]
    flag = _FLAG.search(text)
    name = flag[1].replace("-", "_") if flag else None
    word, colon, rest = text.partition(": ")
    if name is None and colon and word in _OPTIONS + _LISTS:
        name, text = word, rest
    elif name is None and path.name in text:
        name = "file"
    elif name is None and text.startswith("there is no device"):
        name = "device"
    return bad_request(f"{name}: {text}" if name else text, name, "invalid_value")


def _path(body: PlanRequest, context: RequestContext) -> Path:
    """The file of a served model, or one in the same folder: clients see no other folder."""
    served = context.find_model(body.model).path
    if body.file is None:
        return served
    if Path(body.file).name != body.file or not body.file.endswith(".gguf"):
        raise wrong("file", "must be the name of a GGUF file, without a folder")
    path = served.parent / body.file
    if not path.is_file():
        raise wrong("file", f"{body.file} does not exist in the model's folder")
    return path
