"""`ggserve bench`: figures, not how large they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from server.cli.main import main


@pytest.mark.e2e
def test_bench_prints_a_table_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    quick = ["--n-batch", "64,8", "--prompt-tokens", "64", "--generate", "4", "--repeat", "1"]
    assert main(["bench", "--use-gpu", "false", *quick]) == 0
    shown = capsys.readouterr().out
    assert shown.index("\n      8 ") < shown.index("\n     64 ")
    assert "generation: " in shown
    assert main(["bench", "--use-gpu", "false", *quick, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert set(data["prompt_tokens_per_second"]) == {"8", "64"}
    assert min(*data["prompt_tokens_per_second"].values(), data["generated_tokens_per_second"]) > 0
    assert set(data["placement"]) == {"CPU"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--n-batch", "8,x"], "separated by commas"),
        (["--n-batch", "0"], "separated by commas"),
        (["--repeat", "0"], "--repeat is 0"),
        (["--plot", "x.pdf"], ".svg or .png"),
    ],
)
def test_mistakes_are_reported_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    try:
        status = main(["bench", *arguments])
    except SystemExit as end:
        status = int(str(end.code))
    error = capsys.readouterr().err
    assert status == 2
    assert message in error
    assert error.count("\n") == 1
