"""POST /slots/{id_slot}?action=save, restore or erase: the sequence that last ran in a slot, and files."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi import Path as Place

from engine.tasks.types import EraseSlot, RestoreSlot, SaveSlot
from server.api.common.requests.parser import check_fields
from server.api.common.schema import Reply, Schema, field, required
from server.dependencies import ContextDep
from server.errors import NotSupported, bad_request, missing, wrong
from server.generation.tasks import run_task
from server.http.json_reply import json_reply
from server.http.json_route import JsonRequest, check_content_type
from server.http.route import Route
from server.http.sse import within_limits


class SlotRequest(Schema):
    filename: str | None = field(
        "save, restore: a file in the folder of --slot-save-path; letters, digits, dots, - and _", "chat.bin"
    )
    model: str | None = field("optional if only one model is served", "stories", max_length=512)


class SlotTimings(Reply):
    save_ms: float | None = field("duration of a save", 49.9)
    restore_ms: float | None = field("duration of a restore", 42.9)


class SlotReply(Reply):
    id_slot: int = required("the slot", 0)
    filename: str | None = field("the file", "chat.bin")
    n_saved: int | None = field("number of tokens whose cells were written", 84)
    n_written: int | None = field("size of the file in bytes", 2101456)
    n_restored: int | None = field("number of tokens whose cells were read", 84)
    n_read: int | None = field("size of the file in bytes", 2101456)
    n_erased: int | None = field("number of tokens that no other sequence in the cache shared", 84)
    timings: SlotTimings | None = field("timings", {"save_ms": 49.9})
    warnings: list[str] | None = field("request fields that had no effect", ["foo has no effect"])


_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")


class _Route(Route):
    """Accepts a JSON body or none.

    From browsers it accepts only JSON, since any page can send an empty body.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            kind = request.headers.get("content-type")
            if kind is not None or "origin" in request.headers or "sec-fetch-site" in request.headers:
                check_content_type(kind or "")
            return await handler(JsonRequest(request.scope, request.receive))

        return handle


router = APIRouter(route_class=_Route)


@router.post("/slots/{id_slot}", response_model=None, responses={200: {"model": SlotReply}})
async def slot_action(
    id_slot: Annotated[int, Place(description="which one", examples=[0])],
    action: Annotated[str, Query(description="save, restore or erase", examples=["erase"])],
    request: Request,
    context: ContextDep,
    model: Annotated[str | None, Query(description="optional if only one model is served")] = None,
    body: SlotRequest | None = None,
) -> Response:
    """Save the sequence that last ended in a slot with its KV cells, restore one, or erase it.

    A restored sequence is in the prefix cache: any request that begins with it can reuse it.
    """
    folder = context.state.settings.slot_folder()
    if folder is None:
        message = "slots cannot be saved; start the server with --slot-save-path DIR"
        raise NotSupported(501, message, code="not_supported")
    body = body or SlotRequest.model_construct()
    engine = context.select_engine(body.model or model)
    if not 0 <= id_slot < len(engine.slots):
        raise wrong("id_slot", f"must be from 0 to {len(engine.slots) - 1}, not {id_slot}")
    slot = engine.slots[id_slot]
    reply: dict[str, Any] = {"id_slot": id_slot}
    check_fields(body, context)

    async def save(path: Path) -> None:
        if not slot.tokens:
            raise bad_request(f"id_slot: nothing has run in slot {id_slot} yet", "id_slot", "empty_slot")
        saved = await run_task(
            SaveSlot(str(path), slot.tokens.tolist(), slot.lora, slot.salt), context, "id_slot"
        )
        reply.update(n_saved=saved.n_tokens, n_written=saved.n_bytes, timings={"save_ms": saved.ms})

    async def restore(path: Path) -> None:
        if not path.is_file():
            message = f"filename: {path.name!r} does not exist"
            raise bad_request(message, "filename", "no_such_file")
        salt = context.cache_salt()
        restored = await run_task(RestoreSlot(str(path), salt), context, "filename")
        slot.keep(restored.tokens, restored.lora, salt)
        timings = {"restore_ms": restored.ms}
        reply.update(n_restored=restored.n_tokens, n_read=restored.n_bytes, timings=timings)

    async def erase() -> None:
        task = EraseSlot(slot.tokens.tolist(), slot.lora, slot.salt)
        slot.keep([])
        erased = await run_task(task, context, "id_slot")
        reply.update(n_erased=erased.n_tokens)

    if action == "erase":
        if body.filename is not None:
            context.warn("filename has no effect")
        work = erase()
    elif action in ("save", "restore"):
        path = path_of(body.filename, folder)
        reply["filename"] = body.filename
        work = save(path) if action == "save" else restore(path)
    else:
        raise wrong("action", "must be save, restore or erase")
    await within_limits(request.receive, context, None, work)
    return json_reply(reply, context)


def path_of(name: str | None, folder: Path) -> Path:
    """The path of a file with this name directly in the folder."""
    if name is None:
        raise missing("filename")
    path = folder / (name if _NAME.fullmatch(name) else ".")
    if path == folder or path.is_symlink() or (path.exists() and not path.is_file()):
        message = (
            "filename: must be a name of at most 200 letters, digits, dots, - and _, which does not begin "
            "with a dot, of a file that is not a link"
        )
        raise bad_request(message, "filename", "invalid_value")
    return path
