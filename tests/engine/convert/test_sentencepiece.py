"""Folders with a tokenizer.model: the ids that SentencePiece itself gives (stored beside its files)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.convert import sentencepiece
from engine.convert.converter import convert
from engine.errors import EngineError, ModelError, UnsupportedModelError
from engine.tokenizer import Tokenizer, load_tokenizer
from support.builders.golden import FOLDER
from support.quick import examples

DATA = Path(__file__).parent / "sentencepiece"
STORED = json.loads((DATA / "ids.json").read_text())


def folder_with(model: Path, tmp_path: Path, n_rows: int = 420, **settings: object) -> Path:
    """A LLaMA whose embedding has `n_rows`, with this tokenizer.model."""
    from safetensors.numpy import save_file

    from engine.convert.folder import Folder

    folder = tmp_path / "model"
    shutil.copytree(FOLDER / "hf" / "llama", folder)
    (folder / "tokenizer.json").unlink()
    shutil.copy(model, folder / "tokenizer.model")
    tensors = {name: t.read() for name, t in Folder(folder).tensors.items()}
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        x = tensors[name]
        tensors[name] = x[[0] * n_rows]
    save_file(tensors, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text()) | {"vocab_size": n_rows}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"bos_token": "<s>", "eos_token": "</s>"} | settings)
    )
    return folder


def converted(model: Path, tmp_path: Path, **settings: object) -> Tokenizer:
    out = tmp_path / "out.gguf"
    convert(folder_with(model, tmp_path, **settings), out)  # type: ignore[arg-type]
    return load_tokenizer(out)


@pytest.mark.parametrize("kind", ["bpe", "bpe-squeezing"])
def test_ids_match_those_of_sentencepiece(kind: str, tmp_path: Path) -> None:
    tokenizer = converted(DATA / f"sp-{kind}.model", tmp_path)
    assert (tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id) == (0, 1, 2)
    for text, ids in zip(STORED["texts"], STORED["ids"][kind], strict=True):
        if text:
            assert tokenizer.encode(text, add_special=False) == ids, text


def test_added_tokens_extend_the_vocabulary(tmp_path: Path) -> None:
    decoder = {
        "420": {"content": "<|im_end|>", "special": True},
        "421": {"content": "\u2581note", "special": False},
    }
    template = [{"name": "default", "template": "A"}, {"name": "tool_use", "template": "B"}]
    tokenizer = converted(
        DATA / "sp-bpe.model",
        tmp_path,
        n_rows=424,
        added_tokens_decoder=decoder,
        chat_template=template,
        add_prefix_space=False,
    )
    assert tokenizer.encode("<|im_end|>", add_special=False, parse_special=True) == [420]
    assert tokenizer.encode("abc note", add_special=False)[-1] == 421
    assert 420 in tokenizer.eog_ids
    assert tokenizer.chat_template == "A"
    assert not tokenizer.add_space_prefix
    assert tokenizer.token_text(423) == "[PAD423]"


def test_unigram_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="model type Unigram"):
        converted(DATA / "sp-unigram.model", tmp_path)


def test_a_folder_without_any_tokenizer_says_what_to_do(tmp_path: Path) -> None:
    folder = folder_with(DATA / "sp-bpe.model", tmp_path)
    (folder / "tokenizer.model").unlink()
    with pytest.raises(UnsupportedModelError, match=r"save_pretrained"):
        convert(folder, tmp_path / "out.gguf")


def test_too_many_pieces_for_the_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"420 pieces, the model 400"):
        converted(DATA / "sp-bpe.model", tmp_path, n_rows=400)


def test_a_field_of_another_type_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(b"\n\x02\x08\x06")  # a piece whose text is a number
    with pytest.raises(ModelError, match="is damaged: field 1 is of another type"):
        sentencepiece.read(path)


WHOLE = (DATA / "sp-bpe.model").read_bytes()


@examples(200)
@given(st.integers(0, len(WHOLE) - 1), st.binary(max_size=4), st.booleans())
def test_damaged_file_is_refused_or_gives_another_vocabulary(
    tmp_path_factory: pytest.TempPathFactory, at: int, junk: bytes, cut: bool
) -> None:
    path = tmp_path_factory.mktemp("sp") / "tokenizer.model"
    path.write_bytes(WHOLE[:at] + junk + (b"" if cut else WHOLE[at + len(junk) :]))
    message = ""
    try:
        sentencepiece.read(path)
    except EngineError as error:
        message = str(error)
    assert "\n" not in message
