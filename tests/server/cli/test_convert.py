"""`ggserve convert` from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.cli.main import main
from support.builders.golden import FOLDER, TinyModel, golden
from support.builders.legacy import of_golden

MODEL = str(FOLDER / "hf" / "qwen2")


def test_convert_of_a_folder_writes_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.gguf"
    assert main(["convert", MODEL, str(out), "--type", "q8_0"]) == 0
    assert "out.gguf" in capsys.readouterr().out
    assert main(["info", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "qwen2" in shown
    assert "Q8_0" in shown


def test_convert_names_tensors_that_did_not_get_the_type(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", str(FOLDER / "hf" / "gpt2"), str(tmp_path / "o.gguf"), "--type", "q8_0"]) == 0
    assert "tensors are f16" in capsys.readouterr().err


def test_convert_of_an_old_file_writes_a_new_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = TinyModel.read(golden("llama-mha-untied").path)
    tokens = [(b"x%d" % i, 0.0) for i in range(model.tensors["token_embd.weight"].shape[0])]
    old, out = of_golden(model, tokens).write(tmp_path / "old.bin"), tmp_path / "out.gguf"
    assert main(["convert", str(old), str(out), "--set", "context_length=77"]) == 0
    assert "--set attention.layer_norm_rms_epsilon" in capsys.readouterr().err
    assert main(["info", str(out)]) == 0
    assert "trained with 77" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([MODEL, "{out}", "--type", "q9"], 2, "q9"),
        (["/nowhere", "{out}"], 2, "does not exist"),
        ([MODEL, "{out}", "--architecture", "llama"], 2, "--architecture does not apply to a directory"),
        (["{file}", "{out}", "--type", "q8_0"], 2, "ggserve quantize"),
        (["{file}", "{out}", "--set", "context_length"], 2, "KEY=VALUE"),
        (["{file}", "{out}"], 1, "neither GGUF nor"),
        (["{dir}", "{out}"], 1, "config.json is missing"),
        ([MODEL, "{out}", "--pre", "odd"], 2, "odd"),
    ],
)
def test_mistakes_are_reported_in_one_line(
    arguments: list[str], status: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_bytes(b"something else")
    places = {"out": tmp_path / "o.gguf", "dir": tmp_path / "empty", "file": tmp_path / "file"}
    words = [a.format(**places) for a in arguments]
    assert main(["convert", *words]) == status
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.glob("o.gguf*"))
