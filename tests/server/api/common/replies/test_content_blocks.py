"""However an answer comes in pieces, its events tell the same blocks as the whole, one after the other."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.types import InferenceParameters, Timings
from server.api.anthropic.formatter import MessageFormatter
from server.api.openai.responses.formatter import ResponseFormatter
from server.api.openai.responses.parser import Conversation
from server.api.openai.responses.tools import RequestTools
from server.chat.output import OutputDelta, ToolCallDelta
from server.generation.job import TokenCounts
from server.generation.options import GenerationOptions
from server.generation.output_processor import SequenceEnd
from server.generation.request_context import AccessRecord, RequestContext
from support.api.named_events import named_events


def job(stream):
    sequence = SimpleNamespace(
        request=SimpleNamespace(params=InferenceParameters()),
        end=None,
        engine_finish=None,
        stop_string=None,
        n_generated=4,
        timings=Timings(),
    )
    keys = SimpleNamespace(anonymous=SimpleNamespace(name="local"))
    state = SimpleNamespace(settings=SimpleNamespace(log_level="info"), keys=keys)
    context = RequestContext(state, AccessRecord("id"))
    return SimpleNamespace(
        id="id",
        model="m",
        created=1,
        context=context,
        sequences=[sequence],
        options=GenerationOptions(id_prefix="", stream=stream),
        counts=lambda: TokenCounts(3, 1, 4, 0),
        timings=dict,
    )


@st.composite
def answers(draw):
    """Runs of reasoning, text and calls, each in pieces."""
    collected = []
    n_calls = 0
    for kind in draw(st.lists(st.sampled_from(["reasoning", "content", "call"]), max_size=6)):
        texts = draw(st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=3))
        if kind == "call":
            collected.append(OutputDelta(tools=(ToolCallDelta(n_calls, f"call_{n_calls}", "f", texts[0]),)))
            collected += [OutputDelta(tools=(ToolCallDelta(n_calls, arguments=text),)) for text in texts[1:]]
            n_calls += 1
        else:
            collected += [OutputDelta(**{kind: text}) for text in texts]
    return collected


def stream_and_blocks(format, parts):
    """The stream of an answer, and the blocks at its end."""
    sequence = format.job.sequences[0]
    data = format.start(sequence)
    for part in parts:
        data += format.delta(sequence, part)
    sequence.end = SequenceEnd.STOP
    return data + format.finish(sequence, last=True) + format.end(), format.blocks.all


def collected_blocks(format, parts):
    """Those of an answer that is not streamed."""
    sequence = format.job.sequences[0]
    for i, part in enumerate(parts, 1):
        sequence.end = SequenceEnd.STOP if i == len(parts) else None
        format.collect(sequence, part)
    return format.blocks.all


def runs(parts):
    """Kinds and texts as they should come out."""
    collected = []
    for content, reasoning, tools, *_ in parts:
        for kind, text, new in (
            ("reasoning", reasoning, False),
            ("text", content, False),
            *(("call", delta.arguments, bool(delta.id)) for delta in tools),
        ):
            if collected and collected[-1][0] == kind and not new:
                collected[-1][1] += text
            elif text or new:
                collected.append([kind, text])
    return collected or [["text", ""]]


@pytest.mark.parametrize("api", [ResponseFormatter, MessageFormatter])
@given(parts=answers())
def test_blocks_follow_the_runs_of_each_kind_of_text(api, parts):
    arguments = ()
    if api is ResponseFormatter:
        arguments = (Conversation(None, [], 0, RequestTools()), {"background": False})
    data, blocks = stream_and_blocks(api(job(stream=True), *arguments), parts)
    assert [[block.kind, block.text] for block in blocks] == runs(parts)
    whole = collected_blocks(api(job(stream=False), *arguments), parts or [OutputDelta()])
    assert [[block.kind, block.text] for block in whole] == runs(parts)
    open, n, texts = None, 0, []
    for event in named_events(data.decode()):
        kind = event["type"]
        if kind in ("response.output_item.added", "content_block_start"):
            assert open is None
            open, n = event.get("output_index", event.get("index")), n + 1
            assert open == n - 1
            texts.append("")
        elif kind in ("response.output_item.done", "content_block_stop"):
            assert event.get("output_index", event.get("index")) == open
            open = None
        elif "delta" in event and kind != "message_delta":
            assert event.get("output_index", event.get("index")) == open
            delta = event["delta"]
            if isinstance(delta, dict):
                _, delta = delta.values()
                delta = "" if event["delta"]["type"] == "signature_delta" else delta
            texts[-1] += delta
    assert open is None
    assert texts == [block.text for block in blocks]
