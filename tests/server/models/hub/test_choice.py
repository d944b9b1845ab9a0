"""Which files are one model, and which model a name means."""

from __future__ import annotations

import pytest

from server.models.errors import ModelNotFound
from server.models.hub import choice
from server.models.hub.choice import RepoFile, choose, models, quant_of

GB = 10**9


def files(**sizes: float) -> list[RepoFile]:
    """Sizes in GB by quantization."""
    return [RepoFile(f"model-{quant}.gguf", int(size * GB)) for quant, size in sizes.items()]


def unasked() -> int:
    raise AssertionError("memory does not matter here")


@pytest.mark.parametrize(
    ("stem", "quant"),
    [
        ("Qwen3-8B-Q4_K_M", "Q4_K_M"),
        ("smollm2-1.7b-instruct-q4_k_m", "Q4_K_M"),
        ("SmolLM2-135M-Instruct.Q4_1", "Q4_1"),
        ("Llama-3.2-1B-Instruct-UD-IQ2_XXS", "UD-IQ2_XXS"),
        ("gpt-oss-20b-mxfp4", "MXFP4"),
        ("nomic-embed-text-v1.5.f16", "F16"),
        ("Qwen3-BF16", "BF16"),
        ("Q6_K/model", "Q6_K"),
        ("BF16/model-Q8_0", "Q8_0"),
        ("TQ1_0/x-TQ1_0", "TQ1_0"),
        ("Mixtral-8x7B-v0.1-imat-IQ3_M", "IQ3_M"),
        ("model", ""),
        ("Q4ever", ""),
    ],
)
def test_the_quantization_is_in_the_name_or_the_folder(stem: str, quant: str) -> None:
    assert quant_of(stem) == quant


def test_parts_make_one_model_and_incomplete_sets_none() -> None:
    parts = [RepoFile(f"Q5_K_M/m-0000{n}-of-00003.gguf", n) for n in (2, 3, 1)]
    (model,) = models([*parts, RepoFile("n-00001-of-00002.gguf", 5)])
    assert (model.quant, model.path, model.size) == ("Q5_K_M", "Q5_K_M/m-00001-of-00003.gguf", 6)
    assert [file.size for file in model.files] == [1, 2, 3]


def test_projectors_imatrices_and_other_files_are_not_models() -> None:
    names = ("mmproj-F16.gguf", "imatrix_unsloth.gguf", "model.safetensors", "README.md", "m-mmproj.gguf")
    assert models([RepoFile(name, 1) for name in names]) == []


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("", "model-Q4_K_M.gguf"),
        ("Q8_0", "model-Q8_0.gguf"),
        ("q8_0", "model-Q8_0.gguf"),
        ("model-F16.gguf", "model-F16.gguf"),
    ],
)
def test_a_choice_is_a_quantization_or_a_file(choice: str, expected: str) -> None:
    available = models(files(Q4_K_M=5, Q8_0=9, F16=16))
    assert choose(available, choice, unasked, "a/b").path == expected


@pytest.mark.parametrize(("memory", "expected"), [(None, "Q8_0"), (24, "Q8_0"), (10.5, "Q6_K"), (4, "Q2_K")])
def test_without_q4_k_m_the_largest_quantized_model_that_fits_is_taken(
    memory: float | None, expected: str
) -> None:
    available = models(files(Q2_K=3, Q6_K=7, Q8_0=9, BF16=16))
    assert (
        choose(available, "", lambda: None if memory is None else int(memory * GB), "a/b").quant == expected
    )


def test_unquantized_model_is_taken_if_there_is_no_other() -> None:
    assert choose(models(files(F16=2, F32=4)), "", lambda: 3 * GB, "a/b").quant == "F16"


@pytest.mark.parametrize(
    ("sizes", "choice", "message"),
    [
        ({}, "", r"a/b holds no GGUF file; look for a repository whose name ends in -GGUF"),
        ({"Q8_0": 9, "Q4_K_M": 5}, "Q3_K_S", r"a/b has no Q3_K_S; it has Q4_K_M, Q8_0$"),
        ({"Q8_0": 9}, "other.gguf", r"a/b has no other.gguf; it has Q8_0$"),
        ({"Q8_0": 9, "Q2_K": 3}, "", r"no model of a/b fits in .*\(2\.00 GB\); .*append :Q2_K \(3\.00 GB\)"),
    ],
)
def test_missing_names_are_refused_with_a_list_of_the_known(
    sizes: dict[str, float], choice: str, message: str
) -> None:
    with pytest.raises(ModelNotFound, match=message):
        choose(models(files(**sizes)), choice, lambda: 2 * GB, "a/b")


def test_two_models_of_one_quantization_are_distinguished_by_file() -> None:
    available = models([RepoFile("small-Q4_K_M.gguf", 1), RepoFile("large-Q4_K_M.gguf", 2)])
    with pytest.raises(ModelNotFound, match=r"append :FILE, one of small-Q4_K_M\.gguf, large-Q4_K_M\.gguf"):
        choose(available, "", lambda: None, "a/b")
    assert choose(available, "large-Q4_K_M.gguf", unasked, "a/b").size == 2


def test_huge_part_count_in_a_name_is_not_enumerated(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []

    def counting(start: int, stop: int) -> range:
        counted.append(stop - start)
        return range(start, stop)

    monkeypatch.setattr(choice, "range", counting, raising=False)
    assert models(RepoFile(f"m{i}-00001-of-99999.gguf", 1) for i in range(9)) == []
    assert sum(counted) == 0
