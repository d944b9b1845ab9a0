"""Two texts in one sequence, as models that compare them were trained."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer as Reference

from engine.tokenizer import load_tokenizer
from support.builders.golden import FOLDER, TinyModel


def test_encode_pair_of_bert_matches_transformers() -> None:
    ours = load_tokenizer(FOLDER / "bert-rank.gguf")
    theirs = Reference.from_file(str(FOLDER / "hf" / "bert-rank" / "tokenizer.json"))
    for first, second in (("the thing", "unable word!"), ("", "a"), ("a", ""), ("x [SEP] y", "[CLS]")):
        ids, start = ours.encode_pair(first, second)
        query = ours.encode(first, add_special=False)
        document = ours.encode(second, add_special=False)
        assert ids == [ours.bos_id, *query, ours.sep_id, *document, ours.sep_id]
        assert start == len(query) + 2
        if "[" not in first:
            tokens = theirs.encode(first, second)
            assert ids == tokens.ids
            assert tokens.type_ids == [int(i >= start) for i in range(len(ids))]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"add_bos_token": True, "add_eos_token": True, "add_sep_token": True}, "bqesde"),
        ({"add_bos_token": True, "add_eos_token": True}, "bqede"),
        ({"add_bos_token": True, "add_sep_token": True}, "bqsd"),
        ({"add_bos_token": False}, "qd"),
    ],
)
def test_encode_pair_adds_the_separators_of_the_model(
    keys: dict[str, bool], expected: str, tmp_path: Path
) -> None:
    """RoBERTa's are <s> q </s></s> d </s>."""
    model = TinyModel.read(FOLDER / "llama-gqa-tied.gguf")
    for key, value in keys.items():
        model.keys[f"tokenizer.ggml.{key}"] = (value, 7, None)
    model.keys["tokenizer.ggml.seperator_token_id"] = (2, 4, None)
    ours = load_tokenizer(model.write(tmp_path / "model.gguf"))
    query, document = ours.encode("a tee", add_special=False), ours.encode("toe", add_special=False)
    parts = {"b": [ours.bos_id], "q": query, "e": [ours.eos_id], "s": [2], "d": document}
    ids, start = ours.encode_pair("a tee", "toe")
    assert ids == [id for part in expected for id in parts[part]]
    assert ids[start : start + len(document)] == document
