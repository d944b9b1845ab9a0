"""POST /slots/{id}: save, restore and erase, by names that stay in their folder."""

from __future__ import annotations

import pytest

from engine.errors import ConfigError
from engine.tasks.types import EraseSlot, RestoreSlot, SaveSlot
from engine.types import Request
from server.worker.errors import TaskFailed
from server.worker.requests.slots import Slots
from server.worker.requests.stream import Stream
from support.api.http import COMPLETIONS, client, error_of
from support.fakes.engine import FakeEngine, make_app, tokenizer
from support.quick import every


def saving(folder, engine=None):
    return client(make_app(engine or FakeEngine(), slot_save_path=folder))


async def complete(http, prompt="Once upon a time", n=3):
    answer = await http.post(COMPLETIONS, json={"prompt": prompt, "max_tokens": n, "return_tokens": True})
    return tokenizer().encode(prompt, parse_special=True) + answer.json()["choices"][0]["tokens"]


@pytest.mark.asyncio
async def test_slot_is_saved_restored_and_erased(tmp_path):
    engine = FakeEngine()
    async with saving(tmp_path, engine) as http:
        tokens = await complete(http)
        slot = engine.seen[0].slot
        path = str(tmp_path / "a.bin")
        saved = await http.post(f"/slots/{slot}?action=save", json={"filename": "a.bin"})
        assert engine.works == [SaveSlot(path, tokens)]
        assert saved.json() == {
            "id_slot": slot,
            "filename": "a.bin",
            "n_saved": len(tokens) - 1,
            "n_written": 1000,
            "timings": {"save_ms": 1.5},
        }
        (tmp_path / "a.bin").touch()
        other = (slot + 1) % len(engine.slots)
        restored = await http.post(f"/slots/{other}?action=restore", json={"filename": "a.bin"})
        assert engine.works[-1] == RestoreSlot(path)
        assert restored.json() == {
            "id_slot": other,
            "filename": "a.bin",
            "n_restored": len(tokens) - 1,
            "n_read": 1000,
            "timings": {"restore_ms": 1.5},
        }
        assert engine.slots[other].tokens.tolist() == tokens
        erased = await http.post(f"/slots/{slot}?action=erase")
        assert engine.works[-1] == EraseSlot(tokens)
        assert erased.json() == {"id_slot": slot, "n_erased": len(tokens) - 1}
        error = error_of(await http.post(f"/slots/{slot}?action=save", json={"filename": "b"}), 400)
        assert error["code"] == "empty_slot"


@pytest.mark.asyncio
async def test_slot_actions_without_a_folder_are_refused():
    async with client() as http:
        for action in ("save", "restore", "erase"):
            answer = await http.post(f"/slots/0?action={action}", json={"filename": "a"})
            error = error_of(answer, 501)
            assert error["type"] == "not_supported_error"
            assert "--slot-save-path" in error["message"]


NAMES = [
    "",
    ".",
    "..",
    "../a",
    "a/../../b",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "C:a",
    "a\0b",
    "a\nb",
    "x" * 300,
    "\uff0e\uff0e",
    "\uff0e\uff0e\uff0fa",
    "ä",
    ".hidden",
    "~",
    "a b",
    "%2e%2e",
    "link",
    "folder",
    "dangling",
]


@pytest.mark.parametrize("name", every(4, NAMES))
@pytest.mark.parametrize("action", ["save", "restore"])
@pytest.mark.asyncio
async def test_file_names_outside_the_folder_are_refused(tmp_path, name, action):
    folder = tmp_path / "slots"
    folder.mkdir()
    outside = tmp_path / "secret"
    outside.write_text("secret")
    (folder / "link").symlink_to(outside)
    (folder / "dangling").symlink_to(tmp_path / "new")
    (folder / "folder").mkdir()
    before = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*"))
    engine = FakeEngine()
    async with saving(folder, engine) as http:
        await complete(http)
        answer = await http.post(f"/slots/{engine.seen[0].slot}?action={action}", json={"filename": name})
        error = error_of(answer, 400)
        assert error["param"] == "filename"
        assert str(tmp_path) not in answer.text
        assert engine.works == []
    assert sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*")) == before
    assert outside.read_text() == "secret"


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/slots/9?action=save", {"filename": "a"}, "id_slot"),
        ("/slots/-1?action=save", {"filename": "a"}, "id_slot"),
        ("/slots/x?action=save", {"filename": "a"}, "id_slot"),
        ("/slots/99999999999999999999?action=save", {"filename": "a"}, "id_slot"),
        ("/slots/0?action=load", {"filename": "a"}, "action"),
        ("/slots/0", {"filename": "a"}, "action"),
        ("/slots/0?action=save", {}, "filename"),
        ("/slots/0?action=save", {"filename": 5}, "filename"),
        ("/slots/0?action=save", {"filename": None}, "filename"),
        ("/slots/0?action=restore", {"filename": "absent"}, "filename"),
        ("/slots/0?action=save&model=none", {"filename": "a"}, "model"),
    ],
)
@pytest.mark.asyncio
async def test_invalid_slot_actions_are_refused(tmp_path, path, body, param):
    async with saving(tmp_path) as http:
        answer = await http.post(path, json=body)
        assert answer.status_code in (400, 404)
        assert error_of(answer, answer.status_code)["param"] == param
    assert list(tmp_path.iterdir()) == []


@pytest.mark.asyncio
async def test_cross_site_requests_cannot_erase_a_slot(tmp_path):
    async with saving(tmp_path) as http:
        for headers in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}):
            error_of(await http.post("/slots/0?action=erase", headers=headers), 415)
        answer = await http.post(
            "/slots/0?action=erase", content=b"filename=a", headers={"content-type": "text/plain"}
        )
        error_of(answer, 415)
        assert (await http.post("/slots/0?action=erase")).status_code == 200
        assert (await http.post("/slots/0?action=erase", json={"filename": "a", "x": 1})).json()[
            "warnings"
        ] == [
            "x has no effect",
            "filename has no effect",
        ]


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (TaskFailed("ModelError", "the file: is damaged: its checksum is wrong"), 400, "invalid_value"),
        (
            TaskFailed("StorageError", "the file: cannot be saved: No space left on device"),
            500,
            "not_written",
        ),
        (TaskFailed("OutOfMemoryError", "no cells"), 503, "out_of_memory"),
    ],
)
@pytest.mark.asyncio
async def test_engine_failures_have_their_status_and_message(tmp_path, failure, status, code):
    engine = FakeEngine()
    async with saving(tmp_path, engine) as http:
        await complete(http)
        engine.work_error = failure
        answer = await http.post(f"/slots/{engine.seen[0].slot}?action=save", json={"filename": "a"})
        error = error_of(answer, status)
        assert error["code"] == code
        if code != "out_of_memory":
            assert str(failure) in error["message"]


def test_missing_slot_folder_is_refused_at_start(tmp_path):
    with pytest.raises(ConfigError, match="--slot-save-path"):
        make_app(slot_save_path=tmp_path / "absent")


class Nobody:
    def pause(self, stream): ...
    def resume(self, stream): ...
    def leave(self, stream): ...


def enter(slots: Slots, id: str, prompt: list[int], slot: int | None = None) -> tuple[Stream, Request]:
    request = Request(id=id, prompt=prompt, slot=slot)
    stream = Stream(Nobody(), request)
    slots.enter(stream, request)
    return stream, request


def test_waiting_stream_gets_the_first_slot_freed():
    slots = Slots(2)
    long = list(range(50))
    a, ra = enter(slots, "a", long)
    b, rb = enter(slots, "b", [7, 8])
    assert {ra.slot, rb.slot} == {0, 1}
    c, rc = enter(slots, "c", [9])
    assert rc.slot is None  # for want of one
    slots.leave(b)
    assert rc.slot == rb.slot
    slots.leave(a)
    slots.leave(c)
    assert slots[ra.slot].tokens.tolist() == long
    assert slots[rc.slot].tokens.tolist() == [9]
    # Whoever goes on finds its slot again, though the other was not used for longer.
    d, rd = enter(slots, "d", [*long, 50, 51])
    assert rd.slot == ra.slot
    e, re = enter(slots, "e", [9], slot=ra.slot)  # asked for, although something runs there
    assert re.slot == ra.slot
    slots.leave(d)
    assert slots[ra.slot].stream is e
    slots.leave(e)
    assert slots[ra.slot].tokens.tolist() == [9]
    assert [slot.stream for slot in slots] == [None, None]
    assert enter(slots, "f", [1], slot=-1)[1].slot is not None


def test_stream_without_a_slot_leaves_without_taking_one():
    slots = Slots(1)
    a, _ = enter(slots, "a", [1])
    b, rb = enter(slots, "b", [2])
    slots.leave(b)
    assert rb.slot == 0
    assert slots[0].stream is a
    slots.leave(a)
    slots.leave(a)  # twice is once
    assert slots[0].tokens.tolist() == [1]
