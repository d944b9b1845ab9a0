# ruff: noqa: RUF001  (letters that look like others are what this is about)
"""How `gpt2` vocabularies cut text into words, by `tokenizer.ggml.pre`.

Names and patterns are facts of the models, under the names that llama.cpp's converter gave them. Where
llama.cpp approximates a pattern, because its regex engine lacks Unicode classes, the pattern here is that of
the model's own tokenizer. Patterns apply one after the other, each to what those before left in one piece;
text that no pattern matches is a piece as well.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}"
_LOWER = r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_START = r"[^\r\n\p{L}\p{N}]?"
_SYMBOLS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_BLANKS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_ASCII_SYMBOL = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"
_CJK = "[一-龥぀-ゟ゠-ヿ]+"
_HAN = "[一-龥ࠀ-一가-퟿]+"  # a range that starts before 一: the model's own slip

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = rf"{_CONTRACTIONS}|{_START}\p{{L}}+|\p{{N}}{{1,3}}|{_SYMBOLS}|{_BLANKS}"
QWEN2 = rf"{_CONTRACTIONS}|{_START}\p{{L}}+|\p{{N}}|{_SYMBOLS}|{_BLANKS}"
QWEN35 = rf"{_CONTRACTIONS}|{_START}[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_BLANKS}"
DEEPSEEK3 = (
    rf"{_ASCII_SYMBOL}[A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+"
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_BLANKS}"
)
BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"


def _cased(after: str, number: str, upper: str = f"[{_UPPER}]", lower: str = f"[{_LOWER}]") -> str:
    """Words that also end where a new capital starts; `after` may follow a word."""
    return (
        rf"{_START}{upper}*{lower}+{after}|{_START}{upper}+{lower}*{after}|{number}"
        rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_BLANKS}"
    )


TEKKEN = _cased("", r"\p{N}")
GPT4O = _cased(f"{_CONTRACTIONS}?", r"\p{N}{1,3}")
_NOT_HAN = "&&[^\\p{Han}]"
KIMI = r"\p{Han}+|" + _cased(
    f"{_CONTRACTIONS}?", r"\p{N}{1,3}", f"[{_UPPER}{_NOT_HAN}]", f"[{_LOWER}{_NOT_HAN}]"
).replace("[\\r\\n/]*", "[\\r\\n]*")
_LETTERS = (  # the letters that deepseek-llm names one by one
    r"A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}\x{295}-\x{2AF}"
    r"\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C}\x{38E}-\x{3A1}"
    r"\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556}\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}"
    r"\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}"
    r"\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}"
    r"\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE}"
    r"\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}"
    r"\x{1FF2}-\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107}\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124}"
    r"\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E}"
    r"\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}"
    r"\x{A680}-\x{A69B}\x{A722}-\x{A76F}\x{A771}-\x{A787}\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}"
    r"\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}\x{10400}-\x{1044F}"
    r"\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF}"
    r"\x{1E900}-\x{1E943}"
)
_SPACE_RUNS = "|".join(rf"\s{{{n}}}(?!\S)" for n in (512, 256, 128, 64, 32, 16, 8, 4))


@dataclass(frozen=True)
class PreTokenizer:
    """One way to cut text into words.

    byte_level: pieces are spelled in GPT-2's byte alphabet, else as text with `▁` for spaces and byte tokens.
    nfc: text is composed first. ignore_merges: a word that is a token is not merged up to it.
    digits: the pattern of numbers that are cut into groups of three from the right, a quadratic pattern for
    regex engines on long numbers: the tokenizer cuts those before.
    newlines: a run of newlines that is a token is that token.
    """

    patterns: tuple[str, ...]
    byte_level: bool = True
    nfc: bool = False
    ignore_merges: bool = False
    add_bos: bool = False
    digits: str | None = None
    newlines: bool = False


_GPT2 = PreTokenizer((GPT2,))
_LLAMA3 = PreTokenizer((LLAMA3,))
_LLAMA3_BOS = replace(_LLAMA3, ignore_merges=True, add_bos=True)
_QWEN2 = PreTokenizer((QWEN2,))
_STARCODER = PreTokenizer((r"\p{N}", GPT2))
_DEEPSEEK3 = PreTokenizer((r"\p{N}{1,3}", _CJK, DEEPSEEK3))
_BLOOM = PreTokenizer((BLOOM,))
_GPT4O = PreTokenizer((GPT4O,))
_BAILING = PreTokenizer(
    (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*"
        r"|\s*[\r\n]|\s+(?!\S)|\s+",
    )
)
_LINES = PreTokenizer((r"[^\n]+|\n+",), byte_level=False)
_GEMMA4 = replace(_LINES, add_bos=True, newlines=True)
_TINY_AYA = PreTokenizer((r"\d{1,3}(?=(?:\d{3})*\b)", GPT4O), nfc=True, digits=r"\d")

DEFAULT = PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"))

PRE_TOKENIZERS: dict[str, PreTokenizer] = {
    "default": DEFAULT,
    # llama 3 and its kin
    "llama3": _LLAMA3_BOS,
    "llama-v3": _LLAMA3_BOS,
    "llama-bpe": _LLAMA3_BOS,
    "falcon3": _LLAMA3_BOS,
    "falcon-h1": _LLAMA3_BOS,
    "pixtral": _LLAMA3_BOS,
    "midm-2.0": _LLAMA3_BOS,
    "lfm2": _LLAMA3_BOS,
    "jina-v5-nano": _LLAMA3_BOS,
    "dbrx": _LLAMA3,
    "smaug-bpe": _LLAMA3,
    "chatglm-bpe": _LLAMA3,
    "glm4": replace(_LLAMA3, ignore_merges=True),
    "glm5": replace(_LLAMA3, ignore_merges=True),
    "minicpm5": PreTokenizer((r"\p{N}{1,3}", LLAMA3.replace("{1,3}", "+")), ignore_merges=True),
    "jais-2": PreTokenizer(
        (LLAMA3.removesuffix(r"|\s+(?!\S)|\s+") + rf"|{_SPACE_RUNS}|\s{{1,2}}(?!\S)|\s{{1}}",)
    ),
    # gpt 2 and its kin
    "gpt-2": _GPT2,
    "phi-2": _GPT2,
    "jina-es": _GPT2,
    "jina-de": _GPT2,
    "jina-v2-es": _GPT2,
    "jina-v2-de": _GPT2,
    "jina-v1-en": _GPT2,
    "jina-v2-code": _GPT2,
    "roberta-bpe": _GPT2,
    "gigachat": _GPT2,
    "a.x-4.0": _GPT2,
    "mellum": _GPT2,
    "modern-bert": _GPT2,
    "exaone4": _GPT2,
    "jais": _GPT2,
    "trillion": _GPT2,
    "granite-docling": _GPT2,
    "mpt": replace(_GPT2, nfc=True),
    "olmo": replace(_GPT2, nfc=True),
    # gpt 2 with digits alone
    "starcoder": _STARCODER,
    "refact": _STARCODER,
    "smollm": _STARCODER,
    "codeshell": _STARCODER,
    "exaone": _STARCODER,
    "minerva-7b": _STARCODER,
    "mellum2": _STARCODER,
    "command-r": replace(_STARCODER, nfc=True),
    # qwen 2 and its kin
    "qwen2": replace(_QWEN2, nfc=True),
    "deepseek-r1-qwen": _QWEN2,
    "kormo": _QWEN2,
    "f2llmv2": _QWEN2,
    "megrez": _QWEN2,
    "stablelm2": _QWEN2,
    "hunyuan": _QWEN2,
    "solar-open": _QWEN2,
    "grok-2": _QWEN2,
    "qwen35": PreTokenizer((QWEN35,)),
    "ufakzeka": PreTokenizer((QWEN2.removeprefix(f"{_CONTRACTIONS}|"),)),
    "laguna": PreTokenizer((r"[^\n]+|\n+", QWEN2)),
    "seed-coder": PreTokenizer(
        (rf"{_CONTRACTIONS}|{_START}\p{{L}}+|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_BLANKS}",)
    ),
    "exaone-moe": PreTokenizer(
        (
            rf"{_CONTRACTIONS}|{_START}(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}"
            r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
        )
    ),
    "bailingmoe": _BAILING,
    "bailingmoe2": _BAILING,
    "llada-moe": _BAILING,
    # deepseek
    "deepseek-llm": PreTokenizer(
        (
            r"[\r\n]",
            rf"\s?[{_LETTERS}]+",
            r"\s?[!-/:-~！-／：-～‘-‟　-。]+",
            r"(?<!\s)\s+$",  # the look-behind only saves the engine quadratic time
            _HAN,
            r"\p{N}+",
        )
    ),
    "deepseek-coder": PreTokenizer((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _HAN, r"\p{N}")),
    "deepseek-v3": _DEEPSEEK3,
    "hunyuan-dense": _DEEPSEEK3,
    "joyai-llm": _DEEPSEEK3,
    "hy_v4": _DEEPSEEK3,
    "spark2_5": PreTokenizer(
        (r"\p{N}{1,3}", _CJK, DEEPSEEK3.replace(r"+[\r\n]*|\s*[\r\n]+|", r"+|[\r\n]|"), r"\p{N}")
    ),
    "youtu": PreTokenizer(
        ("[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|" + _CJK, _cased(f"{_CONTRACTIONS}?", r"\p{N}")),
        ignore_merges=True,
    ),
    "afmoe": PreTokenizer(
        (
            r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))",
            r"[一-鿿㐀-䶿\x{F900}-\x{FAFF}぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-๿຀-໿ក-៿က-႟ꩠ-ꩿꧠ-꧿가-힯ᄀ-ᇿ]+",
            DEEPSEEK3,
        ),
        digits=r"\p{N}",
    ),
    # words by case
    "tekken": PreTokenizer((TEKKEN,), ignore_merges=True, add_bos=True),
    "gpt-4o": _GPT4O,
    "llama4": _GPT4O,
    "kanana2": _GPT4O,
    "talkie": _GPT4O,
    "minimax-m2": _GPT4O,
    "granite-embed-multi-97m": replace(_GPT4O, ignore_merges=True),
    "tiny_aya": _TINY_AYA,
    "cohere2moe": _TINY_AYA,
    "kimi-k2": PreTokenizer((KIMI,)),
    # others
    "falcon": PreTokenizer((r"[\p{P}\$\+<=>\^~\|`]+", GPT2, r"[0-9][0-9][0-9]")),
    "bloom": _BLOOM,
    "poro-chat": _BLOOM,
    "gpt3-finnish": _BLOOM,
    "viking": PreTokenizer((BLOOM, r"\p{N}")),
    "chameleon": PreTokenizer(
        (
            r"<sentinel:[0-9]+>",
            r"(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
            r"([\t\n]|    |  )",
            r"\p{N}",
            r"[\p{P}!-/:-@\[-`{-~]",
            GPT2,
        ),
        add_bos=True,
    ),
    "superbpe": PreTokenizer((r"\p{N}+", r"(?=(\d{3})+(?!\d))"), digits=r"\d"),
    # SentencePiece's alphabet
    "gemma4": _GEMMA4,
    "granite-embed-multi-311m": _GEMMA4,
    "sarvam-moe": _LINES,
}
