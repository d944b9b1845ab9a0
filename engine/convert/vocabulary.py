# ruff: noqa: RUF001  (the probe has many alphabets)
"""Tokenizers of Hugging Face folders as keys of GGUF.

tokenizer.json with byte-level BPE becomes `gpt2`; BPE over characters with byte fallback (LLaMA, Gemma,
Phi 3) becomes `llama`, whose scores are the ranks of its merges; WordPiece becomes `bert`.
Where there is only a tokenizer.model, its pieces and scores become `llama` as they are.
"""

from __future__ import annotations

from typing import Any

import gguf
from tokenizers import Regex, pre_tokenizers
from tokenizers import Tokenizer as Pipeline

from engine.convert import sentencepiece
from engine.convert.folder import VocabularyFolder
from engine.errors import ConfigError, ModelError, UnsupportedModelError
from engine.tokenizer.bpe import splitter
from engine.tokenizer.pretokenizers import PRE_TOKENIZERS

# Preferred names among pre-tokenizers that split alike.
_PREFERRED = ("gpt-2", "qwen2", "llama-bpe", "gpt-4o", "starcoder", "falcon", "bloom", "default")
# Texts that pre-tokenizers split differently: case, digits, contractions, white space, punctuation, scripts.
_PROBE = (
    "Hello world! I'm he'Ll WE'VE 1 12 123 1234 12345 a1b2 x_y  two   three\n\n\nlines \t tabs\r\n end  \n "
    "!!! ... ?! #tag @me (a) [b] {c} ÀÉÎ çà naïve Straße МОСКВА привет 你好世界 こんにちは 안녕 कखग ٣٤ Ⅷ ½ "
    "camelCase HTMLParser fooBar 'quoted' \"x\" $5.00 50% a/b\\c ``` --- === 🚀🌟 e\u0301 \u00a0x \u3000y。、"
)
_SPECIAL = ("bos", "eos", "unk", "sep", "pad", "mask")


def write(writer: gguf.GGUFWriter, source: VocabularyFolder, pre: str | None) -> None:
    """Write all `tokenizer.*` keys. Raises UnsupportedModelError for an unknown kind or pre-tokenizer."""
    if (words := _word_pieces(source)) is not None:
        _write_word_pieces(writer, source, words)
        return
    if not (source.path / "tokenizer.json").exists():
        if not (source.path / "tokenizer.model").exists():
            raise UnsupportedModelError(
                f"{source.path} has neither tokenizer.json nor tokenizer.model; with transformers, "
                "AutoTokenizer.from_pretrained(folder).save_pretrained(folder) writes the first"
            )
        _write_sentencepiece(writer, source)
        return
    description = source.json("tokenizer.json")
    settings = source.json("tokenizer_config.json", optional=True)
    try:
        pipeline = Pipeline.from_file(str(source.path / "tokenizer.json"))
    except Exception as error:  # the library raises nothing more precise
        raise ModelError(f"{source.path / 'tokenizer.json'} is damaged: {error}") from error
    model = description["model"]
    if model.get("type", "BPE") != "BPE":
        raise UnsupportedModelError(
            f"tokenizer.json has the model {model.get('type')}; supported are BPE and WordPiece"
        )
    bytes_in_pieces = not model.get("byte_fallback", False)
    pieces, types = _pieces(source, model, description, bytes_in_pieces)
    writer.add_tokenizer_model("gpt2" if bytes_in_pieces else "llama")
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    if bytes_in_pieces:
        name = pre or recognise(pipeline)
        if name not in PRE_TOKENIZERS:
            raise ConfigError(
                f"unknown pre-tokenizer {name!r}; known are {', '.join(sorted(PRE_TOKENIZERS))}"
            )
        writer.add_tokenizer_pre(name)
    else:
        writer.add_tokenizer_pre("default")
    writer.add_token_list(pieces)
    if bytes_in_pieces:
        writer.add_token_merges(merges)
    else:
        ranks: dict[str, float] = {}
        for rank, merge in enumerate(merges):
            ranks.setdefault(merge.replace(" ", ""), -float(rank))
        writer.add_token_scores([ranks.get(piece, -float(len(merges))) for piece in pieces])
        writer.add_add_space_prefix(_adds_space(description))
    writer.add_token_types(types)
    _special(writer, source, settings, {piece: i for i, piece in enumerate(pieces)})
    _template(writer, source, settings)


def _template(writer: gguf.GGUFWriter, source: VocabularyFolder, settings: dict[str, Any]) -> None:
    """The chat template; of several named ones the default, the others under their names."""
    template = settings.get("chat_template")
    path = source.path / "chat_template.jinja"
    if path.exists():
        template = path.read_text(encoding="utf-8")
    if isinstance(template, str) or (isinstance(template, list) and template):
        writer.add_chat_template(template)


def _write_sentencepiece(writer: gguf.GGUFWriter, source: VocabularyFolder) -> None:
    """tokenizer.model, with the additions of tokenizer_config.json and added_tokens.json."""
    kind = gguf.TokenType
    model = sentencepiece.read(source.path / "tokenizer.model")
    settings = source.json("tokenizer_config.json", optional=True)
    n = int(source.config.get("vocab_size") or len(model.pieces))
    entries = [
        *model.pieces,
        *((f"[PAD{i}]", -10000.0, int(kind.UNUSED)) for i in range(len(model.pieces), n)),
    ]
    added = {
        i: (text, int(kind.USER_DEFINED))
        for text, i in source.json("added_tokens.json", optional=True).items()
    }
    for i, token in settings.get("added_tokens_decoder", {}).items():
        control = bool(token.get("special"))
        text = token["content"] if control else token["content"].replace("\u2581", " ")
        added[int(i)] = (text, int(kind.CONTROL if control else kind.USER_DEFINED))
    for i, (text, type_) in added.items():
        if not 0 <= i < n:
            raise ModelError(f"{source.path}: the added token {i} is outside of the model's {n} rows")
        if entries[i][2] not in (kind.UNKNOWN, kind.BYTE):
            entries[i] = (text, -1000.0, type_)
    if len(entries) > n:
        raise ModelError(f"{source.path}: the tokenizer has {len(entries)} pieces, the model {n} rows")
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([text for text, _, _ in entries])
    writer.add_token_scores([score for _, score, _ in entries])
    writer.add_token_types([type_ for _, _, type_ in entries])
    writer.add_add_space_prefix(bool(settings.get("add_prefix_space", model.adds_space)))
    if model.squeezes:
        writer.add_remove_extra_whitespaces(True)
    _special(writer, source, settings, {text: i for i, (text, _, _) in enumerate(entries)})
    _template(writer, source, settings)


def _word_pieces(source: VocabularyFolder) -> dict[str, Any] | None:
    """The content of a tokenizer.json with WordPiece; older folders have a vocab.txt instead."""
    if (source.path / "tokenizer.json").exists():
        description = source.json("tokenizer.json")
        return description if description.get("model", {}).get("type") == "WordPiece" else None
    path = source.path / "vocab.txt"
    if not path.exists():
        return None
    vocab = {line: i for i, line in enumerate(path.read_text(encoding="utf-8").splitlines())}
    settings = source.json("tokenizer_config.json", optional=True)
    special = [t for t in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if t in vocab]
    return {
        "model": {"vocab": vocab, "unk_token": "[UNK]"},
        "added_tokens": [{"id": vocab[t], "content": t, "special": True} for t in special],
        "normalizer": {
            "type": "BertNormalizer",
            "lowercase": settings.get("do_lower_case", True),
            "strip_accents": settings.get("strip_accents"),
        },
    }


def _write_word_pieces(
    writer: gguf.GGUFWriter, source: VocabularyFolder, description: dict[str, Any]
) -> None:
    """In GGUF, pieces that begin a word have \u2581 in front, and those that continue one have no ##."""
    normalizer = description.get("normalizer") or {}
    model = description["model"]
    if normalizer.get("type") != "BertNormalizer" or model.get("continuing_subword_prefix", "##") != "##":
        raise UnsupportedModelError(
            "tokenizer.json: WordPiece is supported with a BertNormalizer and ## only"
        )
    for name in ("clean_text", "handle_chinese_chars"):
        if not normalizer.get(name, True):
            raise UnsupportedModelError(f"tokenizer.json: BertNormalizer with {name} off is not supported")
    pieces, types = _pieces(source, model, description, True)
    control = (gguf.TokenType.CONTROL, gguf.TokenType.UNKNOWN, gguf.TokenType.UNUSED)
    spelled = [
        piece if kind in control else piece[2:] if piece.startswith("##") else "\u2581" + piece
        for piece, kind in zip(pieces, types, strict=True)
    ]
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(spelled)
    writer.add_token_types(types)
    writer.add_token_type_count(int(source.config.get("type_vocab_size") or 1))
    ids = {piece: i for i, piece in enumerate(pieces)}
    names = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
    defaults = {f"{name}_token": text for name, text in names.items()}
    settings = defaults | source.json("tokenizer_config.json", optional=True)
    settings = {"bos_token": settings["cls_token"], "eos_token": settings["sep_token"]} | settings
    _special(writer, source, settings, ids)
    writer.add_bool("tokenizer.ggml.normalizer.lowercase", bool(normalizer.get("lowercase", True)))
    if normalizer.get("strip_accents") is not None:  # else as lowercase says
        writer.add_bool("tokenizer.ggml.normalizer.strip_accents", bool(normalizer["strip_accents"]))


def _pieces(
    source: VocabularyFolder, model: dict[str, Any], description: dict[str, Any], bytes_in_pieces: bool
) -> tuple[list[str], list[int]]:
    """Texts and types of all token ids, padded to the rows of the embedding."""
    kind = gguf.TokenType
    texts = {i: piece for piece, i in model["vocab"].items()}
    types = {}
    for i, piece in texts.items():
        is_byte = not bytes_in_pieces and len(piece) == 6 and piece.startswith("<0x")
        types[i] = kind.BYTE if is_byte else kind.NORMAL
    if model.get("unk_token") in model["vocab"]:
        types[model["vocab"][model["unk_token"]]] = kind.UNKNOWN
    for token in description.get("added_tokens", []):
        texts[token["id"]] = token["content"]
        unknown = types.get(token["id"]) == kind.UNKNOWN
        types[token["id"]] = (
            kind.UNKNOWN if unknown else kind.CONTROL if token["special"] else kind.USER_DEFINED
        )
    n = int(source.config.get("vocab_size") or max(texts) + 1)
    if max(texts) >= n:
        raise ModelError(f"{source.path}: the tokenizer has ids up to {max(texts)}, the model {n} rows")
    pieces = [texts.get(i, f"[PAD{i}]") for i in range(n)]
    return pieces, [int(types.get(i, kind.UNUSED)) for i in range(n)]


def _adds_space(description: dict[str, Any]) -> bool:
    """Whether a space is put before a text: by LLaMA 2's normalizer, or by Metaspace's `prepend_scheme`."""
    text = str(description.get("normalizer")) + str(description.get("pre_tokenizer"))
    return "Prepend" in text or "'prepend_scheme': 'first'" in text or "'prepend_scheme': 'always'" in text


def _special(
    writer: gguf.GGUFWriter, source: VocabularyFolder, settings: dict[str, Any], ids: dict[str, int]
) -> None:
    generation = source.json("generation_config.json", optional=True)
    for name in _SPECIAL:
        token = settings.get(f"{name}_token")
        text = token.get("content") if isinstance(token, dict) else token
        token_id = ids.get(text) if isinstance(text, str) else None
        if token_id is None:
            number = source.config.get(f"{name}_token_id", generation.get(f"{name}_token_id"))
            number = number[0] if isinstance(number, list) and number else number
            token_id = number if isinstance(number, int) and 0 <= number < len(ids) else None
        if token_id is not None:
            getattr(writer, f"add_{name}_token_id")(token_id)
    ends = generation.get("eos_token_id")
    if isinstance(ends, list) and len(ends) > 1:
        writer.add_eot_token_id(ends[1])
    for name in ("bos", "eos"):
        flag = settings.get(f"add_{name}_token")
        if isinstance(flag, bool):
            getattr(writer, f"add_add_{name}_token")(flag)


def recognise(pipeline: Pipeline) -> str:
    """The pre-tokenizer that splits the probe text in the same places. UnsupportedModelError if none."""
    spans = _cuts(pipeline.pre_tokenizer)
    nfc = "NFC" in str(pipeline.normalizer)
    order = sorted(PRE_TOKENIZERS, key=lambda n: (_PREFERRED.index(n) if n in _PREFERRED else 99, n))
    alike = [n for n in order if PRE_TOKENIZERS[n].byte_level and _cuts(splitter(PRE_TOKENIZERS[n])) == spans]
    for name in alike:
        if PRE_TOKENIZERS[name].nfc == nfc:
            return name
    if alike:
        return alike[0]
    raise UnsupportedModelError(
        "tokenizer.json splits words in an unknown way; --pre NAME forces one of "
        + ", ".join(sorted(PRE_TOKENIZERS))
    )


def _cuts(pre_tokenizer: Any) -> list[tuple[int, int]]:
    """(begin, end) of the words of the probe text."""
    if pre_tokenizer is None:
        pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]+"), "isolated")
    return [span for _, span in pre_tokenizer.pre_tokenize_str(_PROBE)]
