"""What all tokenizers share: special tokens, ends of generation, decoding, and harmful vocabularies."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from engine.errors import ConfigError, ModelError, UnsupportedModelError
from engine.gguf import GGUFFile
from engine.tokenizer import Tokenizer, load_tokenizer
from engine.tokenizer.bpe import BYTE_ALPHABET
from engine.tokenizer.detokenizer import Detokenizer
from engine.tokenizer.special import SpecialTokens
from support.builders.gguf import F32, I32, STRING, GGUFBuilder
from support.builders.vocabularies import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    USER_DEFINED,
    published,
    published_path,
    write,
)
from support.quick import examples

UNTIMED = examples(100)
BYTES = sorted(BYTE_ALPHABET, key=BYTE_ALPHABET.__getitem__)
ROOT = Path(__file__).parents[3]
STORIES = ROOT / "models" / "stories.gguf"


def byte_level(path: Path, added: dict[str, int], **keys: Any) -> Tokenizer:
    """All bytes, then tokens of the types given; id 256 is the first of them."""
    types = [NORMAL] * 256 + list(added.values())
    keys = {"types": types, "merges": [], "pre": "gpt-2"} | keys
    return load_tokenizer(write(path, "gpt2", [*BYTES, *added], **keys))


def eog(tokenizer: Tokenizer) -> set[str]:
    return {tokenizer.token_text(i) for i in tokenizer.eog_ids}


def test_bundled_model() -> None:
    tokenizer = load_tokenizer(STORIES)
    text = "Once upon a time, there was a naïve 🦊.\n"
    ids = tokenizer.encode(text)
    assert ids[0] == tokenizer.bos_id
    assert tokenizer.decode(ids) == text
    assert tokenizer.eos_id in tokenizer.eog_ids
    assert tokenizer.eot_id in tokenizer.eog_ids
    assert tokenizer.chat_template is not None
    assert tokenizer.n_vocab == 2048


def test_open_file_and_path_give_the_same() -> None:
    with GGUFFile.open(STORIES) as gguf:
        tokenizer = Tokenizer.from_gguf(gguf)
        assert load_tokenizer(gguf).encode("a tale") == tokenizer.encode("a tale")
    assert tokenizer.encode("a tale") == load_tokenizer(str(STORIES)).encode("a tale")


def test_kinds_to_come_are_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "model.gguf", "rwkv", ["a", "b"])
    with pytest.raises(UnsupportedModelError, match=r"tokenizer kind 'rwkv' is not supported; .*gpt2, llama"):
        load_tokenizer(path)


# special tokens in text


@pytest.mark.parametrize(
    ("text", "parse", "expected"),
    [
        ("a<s>b", True, ["a", "<s>", "b"]),
        ("a<s>b", False, ["a", "<", "s", ">", "b"]),
        ("<s><s>", True, ["<s>", "<s>"]),
        ("<s>>", True, ["<s>>"]),  # the longer one
        ("<<s>", True, ["<", "<s>"]),
        ("[[x]", False, ["[", "[x]"]),  # user-defined ones are found without parsing
        ("ab[x", True, ["a", "b[x"]),
        ("ab[x]", True, ["a", "b", "[x]"]),  # of equally long ones the smaller id, wherever it stands
        ("q[x]<unk>", True, ["q", "[x]", "<unk>"]),
        ("", True, []),
    ],
)
def test_special_tokens_in_text(tmp_path: Path, text: str, parse: bool, expected: list[str]) -> None:
    added = {"<s>": CONTROL, "<s>>": CONTROL, "[x]": USER_DEFINED, "b[x": USER_DEFINED, "<unk>": UNKNOWN}
    tokenizer = byte_level(tmp_path / "v.gguf", added)
    ids = tokenizer.encode(text, parse_special=parse)
    assert [tokenizer.token_text(i) for i in ids] == expected


TOKENS = st.dictionaries(
    st.text(st.sampled_from("<a>"), min_size=1, max_size=4),
    st.sampled_from([CONTROL, USER_DEFINED]),
    max_size=8,
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizer") / "v.gguf"


@UNTIMED
@given(added=TOKENS, text=st.text(st.sampled_from("<a> "), max_size=20), parse=st.booleans())
def test_partition_is_the_slow_one(file: Path, added: dict[str, int], text: str, parse: bool) -> None:
    """Token after token, the longest first, is cut out of what is still text."""
    specials = SpecialTokens(byte_level(file, added).vocabulary)
    fragments: list[str | int] = [text]
    order = sorted(enumerate(added, 256), key=lambda item: -len(item[1]))
    for token, piece in order:
        if not parse and added[piece] == CONTROL:
            continue
        cut: list[str | int] = []
        for fragment in fragments:
            if isinstance(fragment, int):
                cut.append(fragment)
                continue
            while (at := fragment.find(piece)) >= 0:
                cut += [fragment[:at], token]
                fragment = fragment[at + len(piece) :]
            cut.append(fragment)
        fragments = cut
    assert specials.partition(text, parse) == [f for f in fragments if f != ""]


def test_thousands_of_special_tokens_and_megabytes_of_brackets(tmp_path: Path) -> None:
    """Would take minutes if each token were searched everywhere, piece by piece."""
    added = {f"<extra_{i}>": CONTROL for i in range(5000)}
    tokenizer = byte_level(tmp_path / "v.gguf", added)
    assert len(tokenizer.encode("<" * 500_000, parse_special=True)) == 500_000
    assert tokenizer.encode("<extra_7>" * 20_000, parse_special=True) == [256 + 7] * 20_000


def test_phi_3_swallows_space_after_its_tokens() -> None:
    """By the model's name; no key says so."""
    tokenizer = published("phi-3")
    ids = tokenizer.encode("<|user|>\n \n hi<|end|>\n<|assistant|>", add_special=False, parse_special=True)
    assert [tokenizer.token_text(i) for i in ids] == ["<|user|>", "▁hi", "<|end|>", "<|assistant|>"]
    ids = tokenizer.encode("<s> hi", add_special=False, parse_special=True)
    assert [tokenizer.token_text(i) for i in ids] == ["<s>", "▁", "▁hi"]


def test_mask_swallows_space_before_it(tmp_path: Path) -> None:
    tokenizer = byte_level(tmp_path / "v.gguf", {"<mask>": CONTROL}, pre="jina-v2-code")
    ids = tokenizer.encode("a \t<mask> b", parse_special=True)
    assert [tokenizer.token_text(i) for i in ids] == ["a", "<mask>", "Ġ", "b"]


# ids and flags


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
def test_what_ends_generation(tmp_path: Path, added: dict[str, int], keys: dict, expected: set[str]) -> None:
    tokenizer = byte_level(tmp_path / "v.gguf", added, **keys)
    assert eog(tokenizer) == expected


def test_published_ends_of_generation() -> None:
    assert eog(published("phi-3")) == {"<|endoftext|>", "<|end|>", "</s>"}
    assert eog(load_tokenizer(published_path("starcoder"))) == {"<|endoftext|>", "<fim_pad>"}


def test_tokens_known_by_text_become_control_tokens(tmp_path: Path) -> None:
    tokenizer = byte_level(tmp_path / "v.gguf", {"<|im_end|>": NORMAL, "<|channel|>": CONTROL})
    assert tokenizer.is_special(256)
    assert tokenizer.token_bytes(256) == b""
    assert 256 not in tokenizer.encode("<|im_end|>")
    assert tokenizer.encode("<|im_end|>", parse_special=True) == [256]
    assert tokenizer.token_bytes(257) == b"<|channel|>"  # a client must see it


def test_ids_by_name(tmp_path: Path) -> None:
    added = {"<b>": CONTROL, "<e>": CONTROL, "<p>": CONTROL, "<|fim_middle|>": CONTROL, "<x>": CONTROL}
    keys = {"bos_token_id": 256, "eos_token_id": 257, "padding_token_id": 258, "prefix_token_id": 260}
    tokenizer = byte_level(tmp_path / "v.gguf", added, **keys)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (256, 257, 258)
    assert (tokenizer.fim_pre_id, tokenizer.fim_mid_id, tokenizer.fim_suf_id) == (260, 259, None)
    assert (tokenizer.unk_id, tokenizer.eot_id, tokenizer.mask_id) == (None, None, None)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"pre": "gpt-2"}, (False, False)),
        ({"pre": "llama-bpe"}, (True, False)),
        ({"pre": "llama-bpe", "add_bos_token": False, "add_eos_token": True}, (False, True)),
    ],
)
def test_what_is_added_around(tmp_path: Path, keys: dict, expected: tuple[bool, bool]) -> None:
    keys = {"bos_token_id": 256, "eos_token_id": 257} | keys
    tokenizer = byte_level(tmp_path / "v.gguf", {"<b>": CONTROL, "<e>": CONTROL}, **keys)
    assert (tokenizer.add_bos, tokenizer.add_eos) == expected
    around = [256] * expected[0] + tokenizer.encode("a", add_special=False) + [257] * expected[1]
    assert tokenizer.encode("a") == around


def test_nothing_is_added_that_does_not_exist(tmp_path: Path) -> None:
    tokenizer = byte_level(tmp_path / "v.gguf", {}, add_bos_token=True, add_eos_token=True)
    assert (tokenizer.add_bos, tokenizer.add_eos) == (False, False)
    assert tokenizer.encode("") == []


# text and bytes


def test_control_tokens_are_no_text(tmp_path: Path) -> None:
    tokenizer = byte_level(tmp_path / "v.gguf", {"<s>": CONTROL, "[x]": USER_DEFINED})
    ids = tokenizer.encode("<s>a[x]<s>", parse_special=True)
    assert tokenizer.decode(ids) == "a[x]"
    assert tokenizer.decode(ids, skip_special=False) == "<s>a[x]<s>"
    for skip in (True, False):
        detokenizer = Detokenizer(tokenizer, skip_special=skip)
        assert "".join(map(detokenizer.push, ids)) == tokenizer.decode(ids, skip_special=skip)


def test_incomplete_characters_are_replaced() -> None:
    tokenizer = load_tokenizer(STORIES)
    ids = tokenizer.encode("🦊", add_special=False)
    assert len(ids) > 1
    assert tokenizer.decode(ids[:-1]) == "\ufffd"


def test_space_that_encode_added_is_removed_once() -> None:
    tokenizer = published("llama-spm")
    for text in ("hi", " hi", "  hi", " ", "", "\n", "é"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert tokenizer.decode(tokenizer.encode(text, add_special=False)) == text
    ids = tokenizer.encode("hi")
    assert tokenizer.decode(ids, skip_special=False) == "<s> hi"
    # A stream goes on from a prompt: nothing is removed.
    assert Detokenizer(tokenizer).push(ids[1]) == " hi"


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\udc00\ud800", "😀\ud83d"])
def test_unpaired_surrogates_are_replaced(text: str) -> None:
    for tokenizer in (load_tokenizer(STORIES), published("llama-spm")):
        expected = "".join("\ufffd" if 0xD800 <= ord(c) <= 0xDFFF else c for c in text)
        assert tokenizer.decode(tokenizer.encode(text)) == expected


def test_paired_surrogates_are_joined() -> None:
    tokenizer = load_tokenizer(STORIES)
    assert tokenizer.encode("\ud83d\ude00") == tokenizer.encode("😀")


@pytest.mark.parametrize("token", [-1, 2048, 1 << 40])
def test_tokens_outside_the_vocabulary_are_refused(token: int) -> None:
    tokenizer = load_tokenizer(STORIES)
    for call in (
        tokenizer.token_bytes,
        tokenizer.token_text,
        tokenizer.is_special,
        lambda t: tokenizer.decode([t]),
    ):
        with pytest.raises(
            ConfigError, match=f"token {token} is not in the vocabulary; ids go from 0 to 2047"
        ):
            call(token)


def test_fewest_tokens_is_a_lower_bound() -> None:
    for tokenizer in (load_tokenizer(STORIES), published("llama-spm"), published("phi-3")):
        for text in ("", "a", " " * 1000, "hello world " * 100, "é" * 100, "1 -" * 100_000):
            n = len(tokenizer.encode(text, add_special=False))
            for enough in (None, 10, 10**9):
                assert 0 <= tokenizer.min_tokens(text, enough) <= n
    assert load_tokenizer(STORIES).min_tokens("a" * 1_000_000) > 10_000


@pytest.mark.parametrize("text", ["1 -" * 1_000_000, "😀" * 2_000_000, "<s>" * 1_000_000])
def test_far_too_long_text_is_known_early(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    """Without encoding more of it than it takes, also where one token may stand for a thousand characters."""
    tokenizer = byte_level(tmp_path / "v.gguf", {"x" * 1000: NORMAL, "<s>": CONTROL})
    seen: list[int] = []
    encode = tokenizer._encode
    monkeypatch.setattr(tokenizer, "_encode", lambda parts: seen.append(len(parts)) or encode(parts))
    assert tokenizer.min_tokens(text, 4096) >= 4096
    assert len(seen) == 1


def test_compiled_modules_are_not_needed() -> None:
    script = """
import sys, engine.tokenizer, engine.tokenizer.detokenizer
files = {n: getattr(m, "__file__", None) for n, m in sys.modules.items() if n.split(".")[0] == "engine"}
print([name for name, file in files.items() if file and not file.endswith(".py")])
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert run.stdout.strip() == "[]"


# vocabularies out to do harm

PIECES = st.lists(
    st.text(st.sampled_from("ab▁Ġ <>0x41s/|é日\n"), max_size=6)
    | st.sampled_from(["<s>", "</s>", "<0x41>", "<0xZZ>", "<|end|>", "[PAD]", "<|im_end|>", "", "a" * 300]),
    min_size=1,
    max_size=30,
)


def often(draw: st.DrawFn) -> bool:
    return draw(st.sampled_from([True] * 7 + [False]))


@st.composite
def vocabularies(draw: st.DrawFn) -> bytes:
    """Files that are sound as such, with a vocabulary that makes no sense, or hardly any."""
    pieces = draw(PIECES)
    n = len(pieces)
    builder = GGUFBuilder().key("general.architecture", "llama")
    builder.key("general.name", draw(st.sampled_from(["x", "Phi-3 mini"])))
    builder.key("tokenizer.ggml.model", draw(st.sampled_from(["llama", "gpt2", "gemma4"])))
    builder.key("tokenizer.ggml.tokens", pieces, STRING)
    if draw(st.booleans()):
        types = draw(st.lists(st.integers(0, BYTE), min_size=n, max_size=n))
        builder.key("tokenizer.ggml.token_type", types, I32)
    if draw(st.booleans()):
        odd = st.just(0.0) if often(draw) else st.sampled_from([float("inf"), float("nan")])
        floats = st.sampled_from([0.0, -0.0, 1.0, -1e38]) | st.floats(-10, 10, width=32) | odd
        builder.key("tokenizer.ggml.scores", draw(st.lists(floats, min_size=n, max_size=n)), F32)
    if often(draw):
        pair = st.tuples(st.sampled_from(pieces), st.sampled_from(pieces)).map(" ".join)
        builder.key("tokenizer.ggml.merges", draw(st.lists(pair | st.text(max_size=4), max_size=10)), STRING)
    names = ["default", "llama-bpe", "qwen2", "sarvam-moe", "tiny_aya"] if often(draw) else ["?", ""]
    builder.key("tokenizer.ggml.pre", draw(st.sampled_from(names)))
    for name in ("bos", "eos", "eot", "unknown", "fim_pad"):
        if draw(st.booleans()):
            last = n - 1 if often(draw) else n
            builder.key(f"tokenizer.ggml.{name}_token_id", draw(st.integers(0, last)))
    for name in ("add_bos_token", "add_eos_token", "add_space_prefix", "remove_extra_whitespaces"):
        if draw(st.booleans()):
            builder.key(f"tokenizer.ggml.{name}", draw(st.booleans()))
    return builder.build()


@examples(400)
@given(
    data=vocabularies(),
    text=st.text(max_size=20) | st.text(st.sampled_from("ab <>0x41s/|é日\n▁"), max_size=30),
)
def test_nonsense_is_refused_or_works(file: Path, data: bytes, text: str) -> None:
    file.write_bytes(data)
    try:
        tokenizer = load_tokenizer(file)
    except ModelError as error:
        event("refused")
        message = str(error)
    else:
        event("loaded")
        exercise(tokenizer, text)
        return
    assert message.startswith(str(file))
    assert "\n" not in message


def exercise(tokenizer: Tokenizer, text: str) -> None:
    """Nothing raises, and ids stay in the vocabulary."""
    for parse_special in (False, True):
        ids = tokenizer.encode(text, parse_special=parse_special)
        assert all(0 <= i < tokenizer.n_vocab for i in ids)
        assert isinstance(tokenizer.decode(ids), str)
    everything = range(tokenizer.n_vocab)
    assert tokenizer.decode(everything, skip_special=False) is not None
    assert all(0 <= i < tokenizer.n_vocab for i in tokenizer.eog_ids)
    detokenizer = Detokenizer(tokenizer)
    shown = "".join(map(detokenizer.push, everything)) + detokenizer.flush()
    assert shown.removeprefix(" " * tokenizer.add_space_prefix) == tokenizer.decode(everything)
