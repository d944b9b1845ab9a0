"""A tiny model as the folder that people download: config, weights in bfloat16, a byte-level tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from layouts import VOCAB
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from tokenizers.implementations import BertWordPieceTokenizer
from variant import Variant

SPECIAL = ("<unk>", "<s>", "</s>")
MERGED = ("th", "in", "er", "an", "Ġt")


def tokenizer() -> Tokenizer:
    """All bytes and a few merges, in the form of GPT-2's."""
    pieces = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *MERGED]
    assert len(pieces) == VOCAB
    actual = Tokenizer(
        models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[(p[0], p[1]) for p in MERGED])
    )
    actual.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    actual.decoder = decoders.ByteLevel()
    actual.post_processor = processors.ByteLevel(trim_offsets=False)
    actual.add_special_tokens(list(SPECIAL))
    return actual


def word_pieces() -> Tokenizer:
    """A lower-casing WordPiece vocabulary of single characters and a few pieces, in the form of BERT's."""
    letters = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters)]
    pieces += ["the", "##ing", "un", "##able", "word"]
    pieces += [f"[unused{i}]" for i in range(VOCAB - len(pieces))]
    actual = BertWordPieceTokenizer({piece: i for i, piece in enumerate(pieces)}, lowercase=True)
    return actual._tokenizer


def change(path: Path, values: dict[str, Any]) -> None:
    """Other values in config.json; None: it has no such setting."""
    config = json.loads(path.read_text()) | values
    config = {name: value for name, value in config.items() if name not in values or value is not None}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def save(model: torch.nn.Module, folder: Path, v: Variant) -> None:
    """What `transformers` writes for `model`, changed to what is published, and the tokenizer beside it."""
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    if v.checkpoint is not None:
        path = folder / "model.safetensors"
        tensors = {name: x.contiguous() for name, x in v.checkpoint(load_file(path)).items()}
        save_file(tensors, path, {"format": "pt"})
    change(folder / "config.json", v.published)
    save_tokenizer(folder)


def save_tokenizer(folder: Path) -> None:
    """tokenizer.json and tokenizer_config.json."""
    model_type = json.loads((folder / "config.json").read_text())["model_type"]
    if "bert" in model_type and model_type != "modernbert":
        word_pieces().save(str(folder / "tokenizer.json"), pretty=False)
        settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
        names = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
        settings |= {f"{name}_token": text for name, text in names.items()}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")
        return
    tokenizer().save(str(folder / "tokenizer.json"), pretty=False)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")
