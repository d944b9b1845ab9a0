"""Tokenizers of Hugging Face folders: what is recognised, written, and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models

from engine.convert.folder import VocabularyFolder
from engine.convert.vocabulary import recognise, write
from engine.errors import ConfigError, EngineError, ModelError, UnsupportedModelError
from engine.tokenizer.bpe import splitter
from engine.tokenizer.pretokenizers import PRE_TOKENIZERS
from support.quick import every

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED = range(1, 6)
TEMPLATE = "{{ messages }}"


class Recorder:
    """In the place of a GGUF writer: what was added, by key."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return lambda value: self.keys.__setitem__(name.removeprefix("add_"), value)

    def add_bool(self, name: str, value: bool) -> None:
        self.keys[name] = value


def written(folder: Path, n_rows: int = 8, pre: str | None = None, **files: Any) -> dict[str, Any]:
    """files: by name, with an underscore for the dot; text as it is, the rest as JSON."""
    for name, content in files.items():
        stem, _, ending = name.rpartition("_")
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / f"{stem}.{ending}").write_text(text, encoding="utf-8")
    recorder: Any = Recorder()
    write(recorder, VocabularyFolder(folder, n_rows), pre)
    keys: dict[str, Any] = recorder.keys
    return keys


def bpe(**changes: Any) -> dict[str, Any]:
    vocab = {"a": 0, "b": 1, "ab": 2, "<e>": 3}
    model = {"type": "BPE", "vocab": vocab, "merges": ["a b"], "byte_fallback": False} | changes
    added = [{"id": 3, "content": "<e>", "special": True}, {"id": 4, "content": "<u>", "special": False}]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            token | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False) for token in added
        ],
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": None,
        "model": model,
    }


def word_pieces(**normalizer: Any) -> dict[str, Any]:
    vocab = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "un": 4, "##able": 5}
    special = [{"id": vocab[t], "content": t, "special": True} for t in ("[PAD]", "[UNK]", "[CLS]", "[SEP]")]
    return {
        "model": {"type": "WordPiece", "vocab": vocab, "unk_token": "[UNK]"},
        "added_tokens": special,
        "normalizer": {"type": "BertNormalizer", "lowercase": True, "strip_accents": None} | normalizer,
    }


@pytest.mark.parametrize("name", every(9, [name for name, pre in PRE_TOKENIZERS.items() if pre.byte_level]))
def test_recognise_returns_a_pre_tokenizer_that_splits_alike(name: str) -> None:
    pipeline = Tokenizer(models.BPE())
    pipeline.pre_tokenizer = splitter(PRE_TOKENIZERS[name])
    actual = recognise(pipeline)
    assert PRE_TOKENIZERS[actual].byte_level
    text = "camelCase HTMLParser 12345 你好世界 don't\n\n x_y"
    theirs, ours = (splitter(PRE_TOKENIZERS[n]).pre_tokenize_str(text) for n in (name, actual))
    assert [span for _, span in ours] == [span for _, span in theirs]


def test_recognise_of_an_unknown_pre_tokenizer_is_refused() -> None:
    pipeline = Tokenizer(models.BPE())
    with pytest.raises(UnsupportedModelError, match=r"unknown way; --pre NAME forces one of .*gpt-2"):
        recognise(pipeline)


def test_write_of_byte_level_bpe_keeps_merges_and_pads_to_the_rows(tmp_path: Path) -> None:
    keys = written(tmp_path, 6, "gpt-2", tokenizer_json=bpe())
    assert (keys["tokenizer_model"], keys["tokenizer_pre"]) == ("gpt2", "gpt-2")
    assert keys["token_list"] == ["a", "b", "ab", "<e>", "<u>", "[PAD5]"]
    assert keys["token_types"] == [NORMAL, NORMAL, NORMAL, CONTROL, USER_DEFINED, UNUSED]
    assert keys["token_merges"] == ["a b"]


def test_write_of_bpe_with_byte_fallback_has_the_ranks_of_merges_as_scores(tmp_path: Path) -> None:
    keys = written(tmp_path, 5, tokenizer_json=bpe(byte_fallback=True))
    assert (keys["tokenizer_model"], keys["tokenizer_pre"]) == ("llama", "default")
    assert keys["token_scores"] == [-1.0, -1.0, 0.0, -1.0, -1.0]
    assert keys["add_space_prefix"] is False


def test_write_of_word_pieces_turns_continuations_around(tmp_path: Path) -> None:
    keys = written(tmp_path, 6, tokenizer_json=word_pieces())
    assert keys["token_list"] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "\u2581un", "able"]
    assert keys["token_types"] == [CONTROL, UNKNOWN, CONTROL, CONTROL, NORMAL, NORMAL]
    assert keys["tokenizer.ggml.normalizer.lowercase"] is True
    assert "tokenizer.ggml.normalizer.strip_accents" not in keys  # else as lowercase says
    ids = {name: keys[f"{name}_token_id"] for name in ("pad", "unk", "bos", "sep", "eos")}
    assert ids == {"pad": 0, "unk": 1, "bos": 2, "sep": 3, "eos": 3}


def test_write_of_an_older_folder_reads_vocab_txt(tmp_path: Path) -> None:
    lines = "[PAD]\n[UNK]\n[CLS]\n[SEP]\nun\n##able\n"
    settings = {"do_lower_case": False, "strip_accents": True}
    keys = written(tmp_path, 6, vocab_txt=lines, tokenizer_config_json=settings)
    assert keys["token_list"][-2:] == ["\u2581un", "able"]
    assert keys["tokenizer.ggml.normalizer.lowercase"] is False
    assert keys["tokenizer.ggml.normalizer.strip_accents"] is True


def test_write_takes_special_ids_from_text_then_number_and_all_ends(tmp_path: Path) -> None:
    keys = written(
        tmp_path,
        5,
        "gpt-2",
        tokenizer_json=bpe(),
        tokenizer_config_json={"eos_token": {"content": "<e>"}, "unk_token": "absent", "add_bos_token": True},
        generation_config_json={"eos_token_id": [3, 4], "bos_token_id": 0, "pad_token_id": 99},
    )
    assert (keys["eos_token_id"], keys["bos_token_id"], keys["eot_token_id"]) == (3, 0, 4)
    assert keys["add_bos_token"] is True
    assert not {"unk_token_id", "pad_token_id", "add_eos_token"} & keys.keys()


def test_write_prefers_the_template_in_a_file_of_its_own(tmp_path: Path) -> None:
    settings = {"chat_template": "old"}
    files = {"tokenizer_json": bpe(), "tokenizer_config_json": settings}
    assert written(tmp_path, 5, "gpt-2", **files)["chat_template"] == "old"
    assert written(tmp_path, 5, "gpt-2", chat_template_jinja=TEMPLATE)["chat_template"] == TEMPLATE


@pytest.mark.parametrize(
    ("files", "n_rows", "pre", "error", "message"),
    [
        ({}, 5, None, UnsupportedModelError, "neither tokenizer.json nor tokenizer.model.*save_pretrained"),
        ({"tokenizer_json": "{}"}, 5, None, ModelError, "tokenizer.json is damaged"),
        ({"tokenizer_json": bpe()}, 4, "gpt-2", ModelError, "ids up to 4, the model 4 rows"),
        ({"tokenizer_json": bpe()}, 5, "odd", ConfigError, "unknown pre-tokenizer 'odd'; known are .*gpt-2"),
        ({"tokenizer_json": bpe()}, 5, None, UnsupportedModelError, "unknown way"),
        (
            {"tokenizer_json": word_pieces(type="Lowercase")},
            6,
            None,
            UnsupportedModelError,
            "WordPiece is supported with a BertNormalizer",
        ),
        (
            {"tokenizer_json": word_pieces(clean_text=False)},
            6,
            None,
            UnsupportedModelError,
            "BertNormalizer with clean_text off",
        ),
    ],
)
def test_write_of_an_unsupported_tokenizer_says_why(
    files: dict[str, Any],
    n_rows: int,
    pre: str | None,
    error: type[EngineError],
    message: str,
    tmp_path: Path,
) -> None:
    with pytest.raises(error, match=message):
        written(tmp_path, n_rows, pre, **files)


def test_write_without_an_end_text_takes_the_first_end_id(tmp_path: Path) -> None:
    files = {"tokenizer_json": bpe(), "generation_config_json": {"eos_token_id": [4, 3]}}
    keys = written(tmp_path, 5, "gpt-2", **files)
    assert (keys["eos_token_id"], keys["eot_token_id"]) == (4, 3)
