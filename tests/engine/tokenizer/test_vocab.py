"""Which tokens of a vocabulary are special, by key and by text, and which end generation."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.tokenizer import Tokenizer, load_tokenizer
from support.builders.vocabularies import CONTROL, NORMAL, USER_DEFINED, byte_level, published, published_path


def eog(tokenizer: Tokenizer) -> set[str]:
    return {tokenizer.token_text(i) for i in tokenizer.eog_ids}


@pytest.mark.parametrize(
    ("added", "keys", "expected"),
    [
        ({"<|endoftext|>": CONTROL}, {}, {"<|endoftext|>"}),
        ({"stop": CONTROL, "x": CONTROL}, {"eos_token_id": 256}, {"stop"}),
        ({"stop": CONTROL, "x": CONTROL}, {"eot_token_id": 256, "eom_token_id": 257}, {"stop", "x"}),
        ({"<|im_end|>": NORMAL, "<|eot_id|>": USER_DEFINED}, {}, {"<|im_end|>", "<|eot_id|>"}),
        (
            {"<|fim_pad|>": CONTROL, "<|file_sep|>": CONTROL, "<|fim_prefix|>": CONTROL},
            {},
            {"<|fim_pad|>", "<|file_sep|>"},
        ),
        ({"</s>": CONTROL}, {}, {"</s>"}),
        ({"</s>": NORMAL}, {}, set()),  # HTML
        ({"</s>": NORMAL}, {"eos_token_id": 256}, {"</s>"}),
        ({"</s>": CONTROL, "<|tool_response>": CONTROL}, {}, {"<|tool_response>"}),
        # harmony: <|end|> ends a message, not the answer
        ({"<|end|>": CONTROL, "<|return|>": CONTROL, "<|call|>": CONTROL}, {}, {"<|return|>", "<|call|>"}),
        ({"<|end|>": CONTROL}, {}, {"<|end|>"}),
        ({}, {}, set()),
    ],
)
def test_end_of_generation_tokens_are_found_by_id_and_text(
    tmp_path: Path, added: dict[str, int], keys: dict, expected: set[str]
) -> None:
    tokenizer = byte_level(tmp_path / "v.gguf", added, **keys)
    assert eog(tokenizer) == expected


def test_end_of_generation_tokens_of_published_vocabularies_are_found() -> None:
    assert eog(published("phi-3")) == {"<|endoftext|>", "<|end|>", "</s>"}
    assert eog(load_tokenizer(published_path("starcoder"))) == {"<|endoftext|>", "<fim_pad>"}


def test_tokens_known_by_text_become_control_tokens(tmp_path: Path) -> None:
    tokenizer = byte_level(tmp_path / "v.gguf", {"<|im_end|>": NORMAL, "<|channel|>": CONTROL})
    assert tokenizer.is_special(256)
    assert tokenizer.token_bytes(256) == b""
    assert 256 not in tokenizer.encode("<|im_end|>")
    assert tokenizer.encode("<|im_end|>", parse_special=True) == [256]
    assert tokenizer.token_bytes(257) == b"<|channel|>"  # a client must see it


def test_special_ids_are_found_by_name(tmp_path: Path) -> None:
    added = {"<b>": CONTROL, "<e>": CONTROL, "<p>": CONTROL, "<|fim_middle|>": CONTROL, "<x>": CONTROL}
    keys = {"bos_token_id": 256, "eos_token_id": 257, "padding_token_id": 258, "prefix_token_id": 260}
    tokenizer = byte_level(tmp_path / "v.gguf", added, **keys)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (256, 257, 258)
    assert (tokenizer.fim_pre_id, tokenizer.fim_mid_id, tokenizer.fim_suf_id) == (260, 259, None)
    assert (tokenizer.unk_id, tokenizer.eot_id, tokenizer.mask_id) == (None, None, None)
