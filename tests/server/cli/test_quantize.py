"""`ggserve quantize` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from server.cli.main import main
from support.builders.golden import golden

SOURCE = str(golden("qwen2").path)
STORIES = str(Path(__file__).parents[3] / "models" / "stories.gguf")


def test_quantize_prints_types_before_and_after(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.gguf"
    assert main(["quantize", SOURCE, str(out), "q8_0", "--threads", "2"]) == 0
    shown = capsys.readouterr()
    assert "q8_0" in shown.out
    assert shown.err == ""
    lines = shown.out.splitlines()
    assert lines[0].split() == ["before", "after", "tensors", "bytes", "before", "after", "bits", "each"]
    assert lines[-1].startswith("all")
    assert main(["info", str(out)]) == 0
    assert "Q8_0" in capsys.readouterr().out


def test_quantize_prints_json_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.gguf"
    assert main(["quantize", SOURCE, str(out), "Q4_0", "--json", "--keep-output-type"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["bytes_after"] < data["bytes_before"]
    types = {t["name"]: t["after"] for t in data["tensors"]}
    assert types["output.weight"] == "f32"


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ([SOURCE, "{out}", "Q9_Z"], 2, "unknown type Q9_Z"),
        ([SOURCE, "{out}", "Q4_0", "--threads", "0"], 2, "--threads"),
        (["/nowhere.gguf", "{out}", "Q4_0"], 1, "nowhere.gguf"),
        ([STORIES, "{out}", "IQ1_S", "--allow-requantize"], 2, "imatrix"),
        ([SOURCE, "{out}", "Q4_0", "--imatrix", "/nowhere.gguf"], 1, "nowhere.gguf"),
    ],
)
def test_mistakes_are_reported_in_one_line(
    words: list[str], status: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["quantize", *(w.format(out=tmp_path / "o.gguf") for w in words)]) == status
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
