"""POST /v1/plan: would a model fit, and where would which layers go; nothing is loaded."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import msgspec
from fastapi import Response

from server.api.ggserve.plan.schema import PlanReply, PlanRequest
from server.dependencies import State, StateDep
from server.errors import ApiError, bad_request
from server.http.json_route import Bytes, json_router
from server.input import processor

router = json_router()
TIMEOUT_S = 60.0
_OPTIONS = ("use_gpu", "gpu_layers", "context_size", "parallel", "kv_type")
_FLAG = re.compile("--((?:{}|device)(?![a-z-]))".format("|".join(_OPTIONS).replace("_", "-")))


@router.post("/v1/plan", response_model=None, responses={200: {"model": PlanReply}})
async def plan(body: PlanRequest, state: StateDep) -> Response:
    """As `ggserve info --plan`, in a process of its own: this one never touches a device."""
    path = _path(body, state)
    command = [sys.executable, "-m", "server", "info", str(path), "--plan", "--json"]
    for name in _OPTIONS:
        value = getattr(body, name)
        if value is None:
            value = getattr(state.settings, name, None)
        if value is not None:
            command.append(f"--{name.replace('_', '-')}={str(value).lower()}")
    for name in body.device if body.device is not None else state.settings.device:
        command.append(f"--device={name}")
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    except TimeoutError:
        raise ApiError(503, "the devices did not answer in time", code="plan_timeout") from None
    finally:
        if process.returncode is None:
            process.kill()
    try:
        found = msgspec.json.decode(out)
    except msgspec.DecodeError:
        raise _refusal(err.decode(errors="replace"), path) from None
    warnings = processor.unknown_fields(body)
    return Bytes(msgspec.json.encode({**found, "warnings": warnings} if warnings else found))


def _refusal(said: str, path: Path) -> ApiError:
    """What the command says on its last line, without the folder, and about which field."""
    line = (said.strip().splitlines() or ["the plan could not be made"])[-1]
    text = line.removeprefix("ggserve: ").removeprefix("ggserve info: ").replace(str(path), path.name)
    text = text.partition(" (see ggserve")[0]
    found = _FLAG.search(text)
    name = found[1].replace("-", "_") if found else None
    if name is None and path.name in text:
        name = "file"
    elif name is None and text.startswith("there is no device"):
        name = "device"
    return bad_request(f"{name}: {text}" if name else text, name, "invalid_value")


def _path(body: PlanRequest, state: State) -> Path:
    """A served model's file, or one beside it: what a stranger may ask about is confined to that folder."""
    engine = state.engine(body.model, ready=False)
    served = state.settings.models()[engine.name]
    if body.file is None:
        return served
    if Path(body.file).name != body.file or not body.file.endswith(".gguf"):
        raise bad_request("file: must be the name of a GGUF file, without a folder", "file", "invalid_value")
    path = served.parent / body.file
    if not path.is_file():
        raise bad_request(f"file: there is no {body.file} beside the model", "file", "invalid_value")
    return path
