"""`ggserve perplexity` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from server.cli.main import main
from support.logging_state import restored_logging
from support.server_process import ROOT, ggserve

TEXT = ROOT / "tests" / "engine" / "perplexity_text.txt"
CPU = ["--use-gpu", "false", "--threads", "1"]
STORIES = ["--model", "stories"]


@pytest.fixture(autouse=True)
def _logging():
    with restored_logging():
        yield


def test_perplexity_prints_estimates_and_the_result(capsys):
    assert main(["perplexity", "-f", str(TEXT), "--context-size", "64", *STORIES, *CPU]) == 0
    out, err = capsys.readouterr()
    running, result = out.splitlines()
    assert [part.split("]")[0] for part in running.rstrip(",").split(",")] == ["[1", "[2", "[3"]
    assert float(running.rstrip(",").rpartition("]")[2]) == pytest.approx(7.4298, rel=5e-3)
    assert result == f"PPL = {running.rstrip(',').rpartition(']')[2]} +/- {result.rpartition(' ')[2]}"
    assert float(result.rpartition(" ")[2]) == pytest.approx(1.7949, rel=5e-3)
    assert "228 tokens: 3 of 3 chunks of 64, 36 tokens left over" in err
    assert "chunk 1 of 3" in err


def test_perplexity_of_stdin_prints_json():
    done = ggserve(
        "perplexity",
        "-f",
        "-",
        "--context-size",
        "32",
        "--chunks",
        "2",
        "--json",
        *STORIES,
        *CPU,
        input=TEXT.read_text(),
    )
    assert done.returncode == 0
    report = json.loads(done.stdout)
    assert report["perplexity"] == report["estimates"][-1] == pytest.approx(4.8245, rel=5e-3)
    expected = {"n_tokens": 228, "n_chunks": 2, "n_scored": 30, "context_size": 32}
    assert {key: report[key] for key in expected} == expected
    assert report["error"] > 0 < report["nll"]
    assert "chunk 2 of 2" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["-f", str(TEXT)], 2, "the text has 228 tokens, but at least 1024 are needed"),
        (["-f", str(TEXT), "--context-size", "4"], 2, "the context size is 4; perplexity needs at least 8"),
        (["-f", str(TEXT), "--chunks", "0"], 2, "--chunks is 0"),
        (["-f", str(TEXT), "-m", "a=x.gguf", "-m", "b=y.gguf"], 2, "--model was given 2 times"),
        (["-f", "/no/such/text"], 1, "/no/such/text: No such file"),
        (["-f", str(ROOT / "models" / "stories.gguf")], 2, "is not UTF-8 text"),
    ],
)
def test_perplexity_of_invalid_arguments_names_the_mistake(arguments, status, message, capsys):
    model = [] if "-m" in arguments else STORIES
    assert main(["perplexity", *arguments, *model, *CPU]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err.splitlines()[-1]


def test_context_longer_than_in_training_gets_a_warning(tmp_path: Path, capsys):
    path = tmp_path / "long.txt"
    path.write_text(TEXT.read_text() * 6)
    assert main(["perplexity", "-f", str(path), "--context-size", "600", *STORIES, *CPU]) == 0
    assert "the model was trained with 512" in capsys.readouterr().err
