"""Frames survive any division into reads, and nothing else passes for one."""

from __future__ import annotations

import itertools
import math
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import ModelParameters
from engine.tasks.types import (
    Embed,
    Embedded,
    Erased,
    EraseSlot,
    Restored,
    RestoreSlot,
    ResultChunk,
    Saved,
    SaveSlot,
    TaskFailure,
    TaskUpdate,
)
from engine.types import EngineStats, FinishReason, InferenceParameters, Request, StepOutput, Timings, Token
from server.worker import messages as wire

TO_ENGINE = [
    wire.LoadModel(
        "/m.gguf", ModelParameters(use_gpu=False, gpu_layers=3, devices=("CPU",), tensor_split=(1.5, 2.0))
    ),
    wire.LoadModel("ü.gguf", ModelParameters(use_gpu="auto", gpu_layers="all")),
    Request(
        id="r1",
        prompt=list(range(1000)),
        params=InferenceParameters(max_tokens=3, seed=2**64 - 1, logit_bias={5: -math.inf, 2: 1.5}),
        n_batch=7,
        cache_prompt=False,
        deadline_ms=1.5,
        generated=[4, 5],
        sampler_state=9.25,
    ),
    Request(id="r2", prompt=[1]),
    wire.SubmitTask("t1", Embed([[1, 2], [3]], "mean")),
    wire.SubmitTask("t2", SaveSlot("/slots/a.bin", [1, 2])),
    wire.SubmitTask("t3", RestoreSlot("/slots/a.bin")),
    wire.SubmitTask("t4", EraseSlot([1, 2])),
    wire.Cancel("r1"),
    wire.Pause("r1"),
    wire.Resume("r1"),
    wire.Shutdown(),
]
TO_SERVER = [
    wire.LoadStatus(0.5, "layer 3"),
    wire.Ready({"n_ctx": 256, "layers": [{"device": "CPU"}], "arch": "llama"}),
    wire.LoadFailure("ModelError", "truncated"),
    wire.StepUpdate(
        [
            StepOutput(id="r1", tokens=[Token(5, -0.5, [(5, -0.5), (6, -1.0)], 3.5), Token(7)]),
            StepOutput(id="r2", processed=512),
            StepOutput(id="r3", finish=FinishReason.ERROR, error="x", timings=Timings(prompt_n=3)),
        ],
        EngineStats(running=2, compute_ms=1.25),
    ),
    wire.StepUpdate([]),
    wire.TaskUpdates(
        [
            TaskUpdate("t1", [ResultChunk(0, b"\0\1\xff\x7f")], Embedded([], 1)),
            TaskUpdate("t2", result=Saved(3, 4000, 1.5)),
            TaskUpdate("t3", result=Restored([1, 2], 1, 4000, 1.5)),
            TaskUpdate("t4", result=Erased(7)),
            TaskUpdate("t5", failure=TaskFailure("ConfigError", "no")),
            TaskUpdate("t6"),
        ]
    ),
    wire.Heartbeat(1.5, 0.25, 0.5),
    wire.Fatal("gone"),
]


@pytest.mark.parametrize(
    ("messages", "reader"), [(TO_ENGINE, wire.engine_reader), (TO_SERVER, wire.server_reader)]
)
@given(cuts=st.lists(st.integers(0, 4000), max_size=12))
def test_messages_split_into_any_reads_are_decoded_the_same(messages, reader, cuts):
    data = b"".join(bytes(wire.encode(message)) for message in messages)
    points = sorted({0, len(data), *(cut % len(data) for cut in cuts)})
    stream = reader()
    received = [m for a, b in itertools.pairwise(points) for m in stream.feed(data[a:b])]
    assert received == messages


def test_messages_read_byte_by_byte_are_decoded():
    stream = wire.server_reader()
    data = b"".join(bytes(wire.encode(message)) for message in TO_SERVER)
    assert [m for byte in data for m in stream.feed(bytes([byte]))] == TO_SERVER


def test_length_over_the_cap_is_refused_before_allocating():
    stream = wire.server_reader()
    with pytest.raises(wire.ProtocolError, match="the length of a frame is"):
        stream.feed((wire.MAX_FRAME + 1).to_bytes(4, "little"))


def test_message_over_the_cap_is_not_sent(monkeypatch):
    monkeypatch.setattr(wire, "MAX_FRAME", 100)
    with pytest.raises(wire.ProtocolError, match="larger than"):
        wire.encode(Request(id="r", prompt=[70000] * 50))


@pytest.mark.parametrize("message", TO_ENGINE[:3])
def test_messages_of_the_wrong_direction_are_refused(message):
    with pytest.raises(wire.ProtocolError):
        wire.server_reader().feed(bytes(wire.encode(message)))


@given(st.binary(max_size=300))
def test_noise_is_a_protocol_error_or_an_incomplete_frame(noise):
    stream = wire.server_reader()
    try:
        messages = stream.feed(len(noise).to_bytes(4, "little") + noise)
    except wire.ProtocolError:
        return
    assert len(messages) == 1  # it happened to be one


def test_long_frame_in_small_reads_takes_only_its_own_memory():
    frame = bytes(wire.encode(Request(id="r", prompt=[100_000] * 200_000)))
    stream = wire.engine_reader()
    tracemalloc.start()
    try:
        for at in range(0, len(frame) - 4096, 4096):
            assert stream.feed(frame[at : at + 4096]) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * len(frame)
