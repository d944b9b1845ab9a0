"""Whether two vocabularies are one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.errors import ConfigError, ModelError
from engine.gguf import GGUFFile
from engine.tokenizer.comparison import check_same_tokens
from support.builders.gguf import GGUFBuilder
from support.builders.vocabularies import CONTROL, NORMAL, UNUSED, write

TOKENS = ["<s>", "a", "b", "ab"]
TYPES = [CONTROL, NORMAL, NORMAL, NORMAL]


def check(folder: Path, draft: list[str], *, other: list[str] = TOKENS, **keys: Any) -> int:
    own = write(folder / "model.gguf", "gpt2", other, merges=["a b"], **keys.pop("own", {}))
    second = write(folder / "draft.gguf", "gpt2", draft, merges=["a b"], **keys)
    with GGUFFile.open(own) as model, GGUFFile.open(second) as gguf:
        return check_same_tokens(model, gguf)


def test_the_same_tokens_are_counted(tmp_path: Path) -> None:
    assert check(tmp_path, TOKENS) == 4


def test_padding_at_the_end_of_either_is_left_out(tmp_path: Path) -> None:
    padded = [*TOKENS, "[PAD4]", "[PAD5]"]
    types = [*TYPES, UNUSED, UNUSED]
    assert check(tmp_path, padded, types=types) == 4
    assert check(tmp_path, TOKENS, other=padded, own={"types": types}) == 4


def test_the_first_difference_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"draft\.gguf: its token 2 is 'c', the model's is 'b'; choose"):
        check(tmp_path, ["<s>", "a", "c", "x"])


@pytest.mark.parametrize("types", [None, [*TYPES, NORMAL]])
def test_a_token_that_one_of_them_lacks_is_named(tmp_path: Path, types: list[int] | None) -> None:
    more, keys = [*TOKENS, "abc\n"], {} if types is None else {"types": types}
    with pytest.raises(ConfigError, match=r"the model has no token 4 \('abc\\n'\)"):
        check(tmp_path, more, **keys)
    with pytest.raises(ConfigError, match=r"the draft model has no token 4 \('abc\\n'\)"):
        check(tmp_path, TOKENS, other=more, own=keys)


def test_a_file_without_a_vocabulary_cannot_be_compared(tmp_path: Path) -> None:
    path = GGUFBuilder().key("general.architecture", "llama").key("tokenizer.ggml.model", "none")
    with (
        GGUFFile.open(path.write(tmp_path / "none.gguf")) as gguf,
        pytest.raises(ModelError, match="has no vocabulary, by which a draft model is compared"),
    ):
        check_same_tokens(gguf, gguf)
