"""The comparison with llama-server: what is counted, translated, reported. The suite is not run here."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from bench.compat import models, report, suite, wrapper
from engine.gguf import GGUFFile
from engine.tokenizer import load_tokenizer


def rewritten(source: str) -> str:
    return ast.unparse(suite._Counted().visit(ast.parse(source)))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("assert a['timings']['prompt_n'] == n", "assert counted('prompt_n', a['timings']['prompt_n'], n)"),
        (
            "assert t['prompt_n'] + t['cache_n'] == n",
            "assert counted('total', t['prompt_n'] + t['cache_n'], n)",
        ),
        (
            "assert 'prompt_n' in t and t['predicted_n'] == 8",
            "assert 'prompt_n' in t and counted('predicted_n', t['predicted_n'], 8)",
        ),
        ("assert a['prompt_tokens'] == b['completion_tokens']", None),
        ("assert a['prompt_n'] > 0", None),
        ("assert a['content'] == 'x'", None),
        ("x = a['prompt_n'] == 5", None),
    ],
)
def test_only_comparisons_of_counts_with_constants_are_rewritten(before, after):
    assert rewritten(before) == (after or before)


def arguments(text: str) -> list[str]:
    return wrapper.arguments(["--model", "/m.gguf", "--port", "1", *text.split()])


def value(arguments: list[str], flag: str) -> list[str]:
    return [arguments[i + 1] for i, word in enumerate(arguments) if word == flag]


def test_context_of_a_slot_is_its_share_unless_cells_are_shared():
    arguments_read = arguments("--ctx-size 512 --parallel 2")
    assert (value(arguments_read, "--context-size"), value(arguments_read, "--kv-cells")) == (
        ["256"],
        ["512"],
    )
    arguments_read = arguments("--ctx-size 512 --parallel 2 --kv-unified")
    assert (value(arguments_read, "--context-size"), value(arguments_read, "--kv-cells")) == (
        ["512"],
        ["512"],
    )


def test_first_alias_by_name_names_the_model():
    arguments_read = arguments(
        "--alias small,fim,code --tags a,b --temp 0.8 --n-predict 64 --no-slots --metrics"
    )
    assert value(arguments_read, "--model") == ["code=/m.gguf"]
    assert value(arguments_read, "--alias") == ["fim", "small"]
    assert value(arguments_read, "--tag") == ["a", "b"]
    assert value(arguments_read, "--default") == ["temperature=0.8", "max_tokens=64"]
    assert "--no-slots" in arguments_read
    assert "--no-metrics" not in arguments_read


def test_flags_unknown_to_ggserve_are_left_out():
    assert arguments("--cont-batching --n-gpu-layers 5 -fa on") == arguments("")


def junit(path: Path, **outcomes: str) -> Path:
    children = {"passed": "", "failed": "<failure/>", "error": "<error/>", "skipped": "<skipped/>"}
    cases = [
        f'<testcase classname="unit.test_x" name="{name}">{children[outcome]}</testcase>'
        for name, outcome in outcomes.items()
    ]
    path.write_text(f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>")
    return path


def test_test_passing_only_on_llama_server_is_a_fault_unless_explained(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "DIFFERENT", {"d": "it is"})
    peer = junit(
        tmp_path / "peer.xml",
        a="passed",
        b="passed",
        c="failed",
        d="passed",
        e="error",
        f="passed",
        g="skipped",
    )
    ours = junit(
        tmp_path / "ours.xml",
        a="passed",
        b="error",
        c="passed",
        d="failed",
        e="failed",
        f="skipped",
        g="passed",
    )
    comparison = report.compare(peer, ours)
    assert report.failures(comparison) == ["test_x::b"]
    table = report.table(comparison)
    assert "| test_x | 3 of 5 | 2 of 5 | 2 |" in table
    assert "2 more were skipped" in table
    assert "`test_x::d` passes on llama-server only: it is" in table
    assert "`test_x::b` passes on llama-server only: **unexpected**" in table
    document = tmp_path / "doc.md"
    document.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.write(document, comparison)
    report.write(document, comparison)
    assert document.read_text() == f"before\n{report.BEGIN}\n{table}\n{report.END}\nafter\n"


@pytest.mark.e2e
@pytest.mark.parametrize("name", ["infill", "rank"])  # the others are these with less in them
def test_generated_models_load(name, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "cache_dir", lambda: tmp_path)
    path = models.made(name)
    tokenizer = load_tokenizer(path)
    with GGUFFile.open(path) as gguf:
        assert gguf.get_str("general.architecture") in ("llama", "bert")
    assert tokenizer.n_vocab > 30_000
    assert (tokenizer.fim_pre_id is not None) == (name == "infill")
