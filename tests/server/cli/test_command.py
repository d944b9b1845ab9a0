"""What the commands share: the parser, sizes, and the settings of one model."""

from __future__ import annotations

import argparse

import pytest

from engine.errors import ConfigError
from server.cli.command import Parser, file_size, single_model, with_files
from server.config.settings import Settings


def test_names_that_do_not_fit_the_options_are_refused() -> None:
    settings = Settings(model=["stories"], alias=["stories=any"])
    assert with_files(settings).aliases() == {"any": "stories"}
    with pytest.raises((ConfigError, ValueError), match="alias: no model is called"):
        with_files(Settings(model=["stories"]).model_copy(update={"alias": ["other=any"]}))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--prot", "1"], "x: unknown argument --prot; did you mean --port? (see x --help)"),
        (["--prot=1"], "x: unknown argument --prot=1; did you mean --port? (see x --help)"),
        (["--zzz"], "x: unknown argument --zzz (see x --help)"),
        (["--po", "1"], "x: unknown argument --po; did you mean --port? (see x --help)"),  # no abbreviations
    ],
)
def test_parser_reports_a_mistake_on_one_line(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = Parser("x", "text")
    parser.add_argument("--port")
    with pytest.raises(SystemExit) as left:
        parser.parse_args(arguments)
    assert (left.value.code, capsys.readouterr().err) == (2, line + "\n")


@pytest.mark.parametrize(("text", "size"), [("2G", 2 * 10**9), ("500m", 5 * 10**8), ("1M", 10**6)])
def test_file_size_counts_in_powers_of_ten(text: str, size: int) -> None:
    assert file_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "2", "2K", "0M", "-1G", "1.5G", "1000000G", "²G"])
def test_file_size_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a size such as 2G or 500M"):
        file_size(text)


def test_command_for_one_model_refuses_several() -> None:
    with pytest.raises(ConfigError, match="--model was given 2 times; infer takes one"):
        single_model(Settings(model=["a.gguf", "b.gguf"]), "infer")
