"""Loading a tokenizer: of the bundled model, of kinds that are not supported, and of harmful vocabularies."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from engine.errors import ModelError, UnsupportedModelError
from engine.gguf import GGUFFile
from engine.tokenizer import Tokenizer, load_tokenizer
from engine.tokenizer.detokenizer import Detokenizer
from support.builders.gguf import F32, I32, STRING, GGUFBuilder
from support.builders.vocabularies import BYTE, write
from support.quick import examples

ROOT = Path(__file__).parents[3]
STORIES = ROOT / "models" / "stories.gguf"


def test_encode_of_the_bundled_model_round_trips() -> None:
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


def test_unsupported_kinds_are_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "model.gguf", "rwkv", ["a", "b"])
    with pytest.raises(UnsupportedModelError, match=r"tokenizer kind 'rwkv' is not supported; .*gpt2, llama"):
        load_tokenizer(path)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizer") / "v.gguf"


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
def test_nonsense_vocabulary_is_refused_or_works(file: Path, data: bytes, text: str) -> None:
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
