"""Vocabularies of pre-GGUF files: merges that are found again, and what is lost for good."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from engine.convert.legacy import converter as legacy
from engine.convert.legacy.vocabulary import merges_of
from engine.errors import UnsupportedModelError
from engine.tokenizer import load_tokenizer
from support.builders.golden import FOLDER, TinyModel, golden
from support.builders.legacy import of_golden
from support.builders.legacy_goldens import old, pieces, raw_tokens


def trained(seed: int, n: int) -> Tokenizer:
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdeé ", k=rng.randint(1, 9))) for _ in range(60)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=n,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((" ".join(rng.choices(words, k=8)) for _ in range(200)), trainer)
    return tokenizer


@pytest.mark.parametrize("seed", range(5))
def test_merges_are_reconstructed(seed: int, tmp_path: Path) -> None:
    """What `tokenizers` trained cuts every text as the vocabulary that was made from its bare tokens."""
    theirs = trained(seed, 400)
    tokens = [*raw_tokens(theirs), b"zzzz", b"\n\n\n\n"]  # added afterwards
    merges, added = merges_of(tokens)
    assert added == {0, len(tokens) - 2, len(tokens) - 1}
    assert len(merges) == len(tokens) - 256 - 3
    model = TinyModel.read(golden("gpt2").path)
    width = model.tensors["token_embd.weight"].shape[1]
    model.tensors["token_embd.weight"] = np.zeros((len(tokens), width), np.float32)
    of_golden(model, [(t, 0.0) for t in tokens]).write(tmp_path / "old.bin")
    legacy.convert(tmp_path / "old.bin", tmp_path / "new.gguf")
    ours = load_tokenizer(tmp_path / "new.gguf")
    assert ours.eos_id == 0
    rng = random.Random(seed)
    for _ in range(200):
        text = "".join(rng.choices("abcdeé fgABC12\n🦊", k=30)).replace("\n\n\n\n", "\n")
        assert ours.encode(text, add_special=False) == theirs.encode(text).ids


def test_vocabulary_with_lost_bytes_is_refused_unless_a_folder_replaces_it(tmp_path: Path) -> None:
    model = TinyModel.read(golden("gpt2").path)
    lossy = [(t if len(t) != 1 or t.isascii() else b"\xef\xbf\xbd", s) for t, s in pieces(model)]
    source = of_golden(model, lossy).write(tmp_path / "old.bin")
    with pytest.raises(UnsupportedModelError, match="--vocab FOLDER"):
        legacy.convert(source, tmp_path / "new.gguf")
    legacy.convert(source, tmp_path / "new.gguf", vocab=FOLDER / "hf" / "gpt2")
    theirs = Tokenizer.from_file(str(FOLDER / "hf" / "gpt2" / "tokenizer.json"))
    ours = load_tokenizer(tmp_path / "new.gguf")
    text = "the thing in there"
    assert ours.encode(text, add_special=False) == theirs.encode(text).ids


def test_pieces_with_scores_stay_a_sentencepiece_vocabulary(tmp_path: Path) -> None:
    source = old("llama-mha-untied").write(tmp_path / "old.bin")
    legacy.convert(source, tmp_path / "new.gguf")
    ours, theirs = load_tokenizer(tmp_path / "new.gguf"), load_tokenizer(golden("llama-mha-untied").path)
    assert type(ours) is type(theirs)
    assert ours.vocabulary.types == theirs.vocabulary.types
    assert ours.vocabulary.pieces == theirs.vocabulary.pieces
    assert (ours.bos_id, ours.eos_id, ours.unk_id) == (1, 2, 0)
