"""POST /slots/{id_slot}."""

from __future__ import annotations

from server.api.common.schema import Reply, Schema, field, required


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
