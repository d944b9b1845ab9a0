"""Where options come from: flags, variables and files, under their names and their old names."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from engine.errors import ConfigError
from server.config import sources as options
from server.config.settings import Settings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    for name in Settings.model_fields:
        monkeypatch.delenv(f"GGSERVE_{name.upper()}", raising=False)


def parse(text: str) -> Settings:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    options.add_options(parser, serve=True)
    namespace = parser.parse_args(text.split())
    return options.load(options.from_arguments(namespace), namespace.config)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "options.yml"
    path.write_text(text, encoding="utf-8")
    return path


def test_unused_flags_set_nothing():
    parser = argparse.ArgumentParser()
    options.add_options(parser, serve=True)
    assert options.from_arguments(parser.parse_args(["--port", "1"])) == {"port": "1"}


def test_command_may_take_some_options_with_its_own_descriptions(capsys):
    parser = argparse.ArgumentParser()
    options.add_options(parser, serve=False, names=["threads"], descriptions={"threads": "how many"})
    assert "how many" in parser.format_help()
    assert "--port" not in parser.format_help()


def test_an_empty_variable_counts_as_unset(monkeypatch):
    monkeypatch.setenv("GGSERVE_PORT", "")
    assert "port" not in options.read_environment()


def test_a_null_in_a_file_means_the_default(tmp_path):
    assert options.read_file(write(tmp_path, "port: null\nthreads: 2")) == {"threads": 2}


def test_old_name_works_in_every_source(tmp_path, monkeypatch):
    assert parse("--responses-kept 7").max_stored_responses == 7
    assert options.load(file=write(tmp_path, "responses_kept: 8")).max_stored_responses == 8
    monkeypatch.setenv("GGSERVE_RESPONSES_KEPT", "9")
    assert options.load().max_stored_responses == 9
    assert options.unknown_environment() == []
    monkeypatch.setenv("GGSERVE_MAX_STORED_RESPONSES", "10")  # the new name wins
    assert options.load().max_stored_responses == 10
    assert parse("--max-stored-responses 11").max_stored_responses == 11


def test_an_old_name_alongside_the_new_one_in_a_file_is_refused(tmp_path):
    path = write(tmp_path, "responses_kept: 8\nmax_stored_responses: 9")
    with pytest.raises(ConfigError, match="'responses_kept' is an old name of 'max_stored_responses'"):
        options.load(file=path)


def test_names_of_llama_server_set_the_options_of_draft_models():
    settings = parse("-md d.gguf -ngld 3 --draft-max 5")
    assert (settings.draft_model, settings.draft_gpu_layers, settings.spec_draft_n_max) == (
        Path("d.gguf"),
        3,
        5,
    )
    settings = parse("--model-draft d.gguf --gpu-layers-draft auto --draft-n 6 --spec-type ngram-simple")
    assert (settings.draft_model, settings.draft_gpu_layers, settings.spec_draft_n_max) == (
        Path("d.gguf"),
        "auto",
        6,
    )
    assert settings.model_parameters().draft_model == "d.gguf"
    assert parse("--draft 7").spec_draft_n_max == 7
    parser = argparse.ArgumentParser()
    options.add_options(parser, serve=True)
    assert "-md FILE, --model-draft FILE, --draft-model FILE" in parser.format_help()


def test_help_does_not_show_old_names(capsys):
    parser = argparse.ArgumentParser()
    options.add_options(parser, serve=True)
    assert "--max-stored-responses" in parser.format_help()
    assert "--responses-kept" not in parser.format_help()
