"""The benchmark measures what it says: its models run, its client reads streams, its report is whole."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

import engine
from bench import client, device, device_report, random_model, soak, structured, turns
from support.fakes.engine import FakeEngine, make_app, serving

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("kind", random_model.TYPES)
def test_random_models_run_and_never_choose_a_control_token(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    random_model.write(path, random_model.SHAPES["tiny"], kind)
    with engine.load(path, engine.ModelParameters(use_gpu=False, n_threads=1, kv_cells=512)) as model:
        assert model.tokenizer.decode(model.tokenizer.encode(" tanu sire")).strip() == "tanu sire"
        with model.start_session() as session:
            session.feed_prompt(client.prompt(1, 40))
            logits = session.last_logits
    assert np.isfinite(logits).all()
    assert (logits[: random_model.N_SPECIAL] == 0).all()
    assert 0.1 < logits[random_model.N_SPECIAL :].std() < 10
    assert logits.argmax() >= random_model.N_SPECIAL


def test_prompts_differ_from_their_first_token_on() -> None:
    prompts = [client.prompt(seed, 16) for seed in range(20)]
    assert len({tuple(p) for p in prompts}) == 20
    assert client.prompt(3, 16) == prompts[3]


def test_answer_is_timed_by_its_events() -> None:
    def event(**fields: object) -> bytes:
        return json.dumps(fields).encode() + b"\n"

    events = [
        (0.1, event(choices=[{"text": "", "finish_reason": None}])),
        (0.2, event(choices=[{"text": "a", "finish_reason": None}])),
        (0.3, event(choices=[{"text": "b", "finish_reason": None}])),
        (0.5, event(choices=[{"text": "", "finish_reason": "length"}])),
        (0.6, event(choices=[], usage={"prompt_tokens": 7, "completion_tokens": 2})),
        (0.7, b"[DONE]\n"),
    ]
    answer = client.read(events, 0.8, max_tokens=2)
    assert answer == client.Answer(7, 2, first=0.2, last=0.5, total=0.8, cached=0, finish="length")
    with pytest.raises(RuntimeError, match="2 tokens generated instead of 3"):
        client.read(events, 0.8, max_tokens=3)
    with pytest.raises(RuntimeError, match="no text"):
        client.read(events[3:], 0.8, max_tokens=2)


@pytest.mark.parametrize(
    ("text", "finish", "fault"),
    [
        ('{"kind": "question", "topic": "x", "urgent": true}', "stop", ""),
        ('{"kind": "question", "topic": "x"}', "stop", "is not valid under any of the given schemas"),
        ('{"kind": ', "stop", "no JSON"),
        ('{"kind": "question", "topic": "x', "length", "unfinished (length)"),
    ],
)
def test_an_answer_is_valid_if_it_ended_and_matches(text: str, finish: str, fault: str) -> None:
    choice = {"message": {"content": text}, "finish_reason": finish}
    reply = {"choices": [choice], "usage": {"completion_tokens": 7}}
    result = structured.judge(structured.TASKS["union"].schema, reply)
    assert (result.tokens, result.text) == (7, text)
    assert fault in result.fault
    assert bool(fault) == bool(result.fault)


def test_the_table_counts_tokens_and_valid_answers() -> None:
    results = [structured.Result(10, "", ""), structured.Result(20, "unfinished (length)", "")]
    table = structured.table({"ggserve": dict.fromkeys(structured.TASKS, results)}, 2).splitlines()
    assert table[0] == "| schema | ggserve: tokens | valid of 2 |"
    assert table[2] == "| person | 15.0 | 1 |"


@pytest.mark.e2e
def test_bench_of_ggserve_alone_has_a_report(tmp_path: Path) -> None:
    model = tmp_path / "tiny.gguf"
    random_model.write(model, random_model.SHAPES["tiny"], "q8_0")
    size = "--prompt 48 --generate 6 --streams 1 3 --context-size 256 --threads 1 --repetitions 1 --times 1"
    command = [sys.executable, "-m", "bench", "--model", str(model), "--only", "ggserve", *size.split()]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out")], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    (report,) = (json.loads(path.read_text()) for path in (tmp_path / "out").glob("*.json"))
    rows = {row["row"]: row["median"]["ggserve"] for row in report["results"][0]["rows"]}
    assert set(rows) == {
        "prompt_tps",
        "generate_tps",
        "ttft_ms",
        "streams_1",
        "streams_3",
        "rss_peak_mb",
        "pss_mb",
        "load_s",
    }
    assert all(value > 0 for value in rows.values())
    assert rows["rss_peak_mb"] > rows["pss_mb"] > 10  # two processes


def device_figures() -> dict[str, device.Figures]:
    passed = {"passed": 9, "skipped": 1, "failed": {}}
    rates = {"prefill": {"512": 900.0}, "decode": {"1": 50.0}}
    return {
        "operations": passed,
        "answers": {**passed, "failed": {"test_same_answers.test_bloom": "too far"}},
        "engine": {"prefill": {"8": 100.0, "512": 900.0}, "decode": {"1": 50.0, "64": 700.0}, "seconds": 1.0},
        "streams": {"ggserve": {"load_s": 2.5, "1": 49.0, "64": 650.0}, "seconds": 1.0},
        "splits": {"0": rates, "23": rates, "seconds": 1.0},
    }


def test_device_measurement_resumes_without_repeating_a_part(tmp_path: Path) -> None:
    calls: list[str] = []

    def part(name: str) -> device.Figures:
        calls.append(name)
        if name == "streams" and calls.count(name) == 1:
            raise RuntimeError("the card fell off the bus")
        return device_figures()[name]

    todo = {name: (lambda n=name: part(n)) for name in device_figures()}
    state = tmp_path / "out/device.json"
    with pytest.raises(RuntimeError, match="fell off"):
        device.run(todo, state, minutes=20)
    assert device.run(todo, state, minutes=-1) is None
    figures = device.run(todo, state, minutes=20)
    assert calls == ["operations", "answers", "engine", "streams", "streams", "splits"]
    assert figures is not None
    assert figures["splits"]["23"] == device_figures()["splits"]["23"]
    assert device.run(todo, state, minutes=-1) == figures


def test_the_report_of_a_device_has_every_figure(tmp_path: Path) -> None:
    facts = {
        "device": "CUDA0, a card",
        "machine": {"cpu": "a processor", "cores": 16, "load_before": 0.5},
        "model": "m.gguf",
        "date": "2026-11-30",
    }
    page = device_report.write(tmp_path / "devices", "CUDA0", facts, device_figures())
    assert page.name == "cuda0-2026-11-30.md"
    text = page.read_text()
    for expected in (
        "| answers | 9 | 1 | 1 |",
        "- `test_same_answers.test_bloom`: too far",
        "| 512 | 900.0 |",
        "| 64 streams, tokens/s | 650.0 |",
        "| start until ready, s | 2.5 |",
        "| 23 | 900.0 | 50.0 |",
        "no build of llama.cpp's server for this device",
    ):
        assert expected in text
    figures = device_figures()
    figures["streams"]["xllamacpp"] = {"load_s": 1.0, "1": 40.0, "64": 500.0}
    text = device_report.write(tmp_path / "devices", "CUDA0", facts, figures).read_text()
    assert "| 64 streams, tokens/s | 650.0 | 500.0 |" in text
    assert "no build of" not in text


def test_devices_are_found_by_name_and_by_backend() -> None:
    assert device.find("CPU") is not None
    assert device.find("cuda9") is None


def test_soak_names_figures_that_grew_after_warm_up() -> None:
    flat = [{"pss": 1e9 if t else 5e8, "fds": 30.0, "threads": 9.0} for t in range(40)]
    assert soak.growth(flat) == []
    for name, step in {"pss": 10e6, "fds": 1.0, "threads": 1.0}.items():
        leaking = [{**row, name: row[name] + i * step} for i, row in enumerate(flat)]
        (fault,) = soak.growth(leaking)
        assert fault.startswith(f"{name}: ")


@pytest.mark.e2e
def test_short_soak_has_a_report_and_fails_on_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--minutes", "0.1", "--clients", "4", "--threads", "1", "--every", "1", "--out", str(tmp_path)]
    status = soak.main(options)
    printed = capsys.readouterr().out
    assert status == 0, printed
    report = json.loads((tmp_path / "soak.json").read_text())
    assert report["requests"] > 0
    assert all(row["fds"] > 5 and row["pss"] > 1 << 20 for row in report["samples"])
    assert report["latency"]
    monkeypatch.setattr(soak, "growth", lambda rows: ["fds: more"])
    assert soak.main(options) == 1
    assert "fault: fds: more" in capsys.readouterr().out


def test_time_to_first_token_ignores_comments() -> None:
    app = make_app(FakeEngine(prefill_s=0.5), keep_alive_s=0.02)
    log = soak.Log(time.monotonic())
    with serving(app) as url:
        assert soak.Client(urlsplit(url).port or 0, 1, 256, log).stream() == "200"
    ((_, first_ms),) = log.latency
    assert first_ms >= 500
    assert not log.faults


def test_turns_are_the_same_for_every_server() -> None:
    class Recorder(turns.Client):
        """Answers every prompt with its length."""

        def __init__(self) -> None:
            super().__init__(0)
            self.sent: list[object] = []

        def send(self, path: str, **body: Any) -> Any:
            self.sent.append(body)
            prompt = body.get("prompt") or body["messages"]
            self.computed.append(len(prompt))
            return {"tokens": [len(prompt)], "choices": [{"message": {"content": f"{len(prompt)}"}}]}

    one, two = Recorder(), Recorder()
    rows = turns.with_ids(one, 50, 200) | turns.with_messages(one, 9)
    assert rows == turns.with_ids(two, 50, 200) | turns.with_messages(two, 9)
    assert one.sent == two.sent
    assert list(rows.values()) == [
        *("50, 61, 65", "70, 70, 70, 70", "81, 81, 81, 81"),
        *("1, 3, 3", "2, 2, 2, 2", "4, 4, 4, 4"),
    ]
