"""`ggserve info --plan`: what loading would do, before anything is loaded."""

from __future__ import annotations

import json

import pytest

import engine
from server.cli.main import main
from server.models.bundled import bundled_model
from support.server_process import ROOT, ggserve, mistakes

PATH = str(bundled_model())
PLAN = ["info", PATH, "--plan", "--use-gpu", "false"]


def test_plan_table_equals_that_of_the_loaded_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PLAN, "--context-size", "128", "--parallel", "2"]) == 0
    shown = capsys.readouterr().out
    params = engine.ModelParameters(use_gpu=False, context_size=128, parallel=2)
    with engine.load(bundled_model(), params) as model:
        # What is free differs from one moment to the next.
        assert model.plan.table().splitlines()[0].split() == shown.splitlines()[0].split()
        assert "cache: 256 cells" in shown
        assert model.n_cells == 256
        assert main([*PLAN, "--context-size", "128", "--parallel", "2", "--json"]) == 0
        data = json.loads(capsys.readouterr().out)
        assert (data["fits"], data["kv_cells"]) == (True, 256)
        assert data["layers"] == list(model.plan.layers)
        (usage,) = model.plan.usage
        assert data["devices"]["CPU"]["needed"] == usage.needed


def test_draft_model_has_its_own_plan(capsys: pytest.CaptureFixture[str]) -> None:
    both = [*PLAN, "--context-size", "128", "--parallel", "2", "--draft-model", PATH]
    assert main(both) == 0
    model, draft = capsys.readouterr().out.split("draft model:\n")
    assert "cache: 256 cells" in model
    assert "cache: 256 cells" in draft
    assert main([*both, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["draft_model"]["layers"] == report["layers"]
    free = [plan["devices"]["CPU"]["free"] for plan in (report, report["draft_model"])]
    assert free[0] < free[1]


def test_a_plan_that_does_not_fit_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    huge = ["--kv-cells", str(1 << 30), "--kv-type", "f32"]
    assert main([*PLAN, *huge]) == 1
    shown = capsys.readouterr()
    assert "too much" in shown.out
    assert shown.err.startswith("ggserve: CPU has ")
    assert shown.err.count("\n") == 1
    assert main([*PLAN, *huge, "--json"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert data["fits"] is False
    assert "would fit" in data["problem"]


def test_plan_for_a_missing_gpu_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", PATH, "--plan", "--use-gpu", "--device", "nothing"]) == 1
    assert "there is no device nothing" in capsys.readouterr().err


MODEL = ROOT / "models" / "stories.gguf"


@pytest.mark.e2e
def test_info_prints_text_or_json():
    done = ggserve("info", str(MODEL))
    assert (done.returncode, done.stderr) == (0, "")
    assert "llama" in done.stdout
    data = json.loads(ggserve("info", str(MODEL), "--json", "--tensors").stdout)
    assert "token_embd.weight" in json.dumps(data)
    assert "x.gguf" in mistakes(ggserve("info", "/nonexistent/x.gguf"), 1)
