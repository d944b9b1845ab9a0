"""Names of models: which are references, what they are called, which are refused."""

from __future__ import annotations

import pytest

from server.models.reference import NamedModel, looks_short, parse


@pytest.mark.parametrize(
    ("text", "expected", "served"),
    [
        ("hf:Qwen/Qwen3-8B-GGUF", NamedModel("hf", "Qwen/Qwen3-8B-GGUF"), "qwen3-8b"),
        ("hf:a/b_gguf:Q8_0", NamedModel("hf", "a/b_gguf", "Q8_0"), "b"),
        ("hf:a/b:UD/x-Q2_K.gguf", NamedModel("hf", "a/b", "UD/x-Q2_K.gguf"), "b"),
        ("ollama:llama3.2", NamedModel("ollama", "llama3.2"), "llama3.2"),
        ("ollama:me/llama3.2:1b", NamedModel("ollama", "me/llama3.2:1b"), "me/llama3.2:1b"),
        ("ollama:hf.co/a/b-GGUF:Q4_K_M", NamedModel("ollama", "hf.co/a/b-GGUF:Q4_K_M"), None),
        ("lmstudio:me/x-GGUF/x-Q4_K_M.gguf", NamedModel("lmstudio", "me/x-GGUF/x-Q4_K_M.gguf"), "x-q4_k_m"),
    ],
)
def test_valid_reference_is_parsed(text: str, expected: NamedModel, served: str | None) -> None:
    assert parse(text) == expected
    assert str(expected) == text
    assert expected.served_name == (served or expected.name)


@pytest.mark.parametrize("text", ["model.gguf", "/a/hf.gguf", "C:\\x.gguf", "hf", "other:x/y", ""])
def test_a_path_is_not_a_reference(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize(
    "text",
    [
        *("hf:", "hf:x", "hf:a/b/c", "hf:a/b:", "hf:../b", "hf:a/b:../x.gguf", "hf:a/b c"),
        *(
            "ollama:",
            "ollama:a b",
            "ollama:../x",
            "ollama:x:",
            "lmstudio:",
            "lmstudio:/etc/x",
            "lmstudio:a/../b",
        ),
    ],
)
def test_invalid_reference_is_refused_with_the_expected_form(text: str) -> None:
    with pytest.raises(ValueError, match=f"must be {text.partition(':')[0]}:"):
        parse(text)


@pytest.mark.parametrize(
    ("text", "short"),
    [("qwen3-8b", True), ("llama3.2:1b", True), ("x.gguf", False), ("a/b", False), ("", False)],
)
def test_short_names_are_distinguished_from_files(text: str, short: bool) -> None:
    assert looks_short(text) is short
