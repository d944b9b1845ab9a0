"""The documentation names files, tests, options and variables that exist."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from engine import architectures
from server.cli.main import COMMANDS, main
from server.config.settings import Settings

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *(ROOT / folder / "README.md" for folder in ("bench", "models", "tests", "tests/golden")),
]
TOP = ("engine", "server", "ggml", "bench", "docs", "tests", "models", "configs", "deploy", ".ci", ".github")
OTHER_PROGRAMS = {
    "aider": "--edit-format",
    "certbot": "--deploy-hook",
    "docker": "--build --build-arg --gpus --profile --rm",
    "git, cmake": "--branch --depth --install --prefix",
    "kubectl": "--from-file --raw",
    "lm_eval": "--model_args --batch_size --tasks",
    "llama-server": "--ctx-size",
    "useradd, systemctl": "--home-dir --now --shell --system",
    "vulkaninfo": "--summary",
}
SOURCES = ("*.py", "*.pyx", "*.cmake", "*.txt", "*.cpp", "*.h")
GENERATED = ("bench/out",)  # written by a run, not part of the repository

document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())


def expand(text: str) -> list[str]:
    """`engine/{model,cache}/` as `engine/model/` and `engine/cache/`."""
    match = re.search(r"\{([^}]*)\}", text)
    if not match:
        return [text]
    return [
        path
        for name in match[1].split(",")
        for path in expand(text[: match.start()] + name.strip() + text[match.end() :])
    ]


def anchors(path: Path) -> set[str]:
    """The anchors of a Markdown file's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_architecture_has_a_row_with_its_largest_error() -> None:
    text = (ROOT / "docs" / "architectures.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*) \|.*\|.*\| ([\d.]+e-\d+) \|$", text, re.MULTILINE)
    listed = [name for names, _ in rows for name in re.findall(r"`([^`]+)`", names.split(" | ")[0])]
    assert sorted(listed) == architectures.names()
    assert all(0 < float(error) < 2e-4 for _, error in rows)


def test_documented_tests_exist() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\d, ]+) \| .+ \| (.*) \|$", text, re.MULTILINE)
    assert {int(number) for numbers, _ in rows for number in numbers.split(", ")} == set(range(1, 47))
    assert all("`tests/" in tests for _, tests in rows)
    references = re.findall(r"`(tests/[\w./]+)(?:::(\w+))?`", text)
    for path, name in references:
        assert (ROOT / path).exists(), path
        if name:
            assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), (path, name)


@document
def test_repository_paths_in_backticks_exist(path: Path) -> None:
    """Globs must match something; in paths with a placeholder (NAME, N) the folder above it must exist."""
    missing = []
    for quoted in re.findall(r"`([^`\s]+/[^`\s]*)`", path.read_text(encoding="utf-8")):
        if quoted.split("/")[0] not in TOP or quoted.startswith(GENERATED):
            continue
        for name in expand(quoted.partition("::")[0]):
            pattern = re.sub(r"/[^/]*(\bNAME\b|<).*", "", name)
            if not any(ROOT.glob(pattern.rstrip("/"))):
                missing.append(quoted)
    assert missing == []


@document
def test_relative_links_have_targets(path: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if re.match(r"\w+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


def test_readme_is_short() -> None:
    assert (ROOT / "README.md").read_text(encoding="utf-8").count("\n") < 150


@cache
def named(pattern: str) -> set[str]:
    """What the documents call by a name of this form."""
    return {name for path in DOCUMENTS for name in re.findall(pattern, path.read_text(encoding="utf-8"))}


def in_sources(pattern: str, *folders: str) -> set[str]:
    paths = (path for name in folders for suffix in SOURCES for path in (ROOT / name).rglob(suffix))
    return {name for path in paths for name in re.findall(pattern, path.read_text(encoding="utf-8"))}


def test_documented_options_exist(capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        with pytest.raises(SystemExit):
            main([command, "--help"])
    option = r"(?<![\w-])--[a-z][\w-]*"
    ours = set(re.findall(option, capsys.readouterr().out)) | in_sources(option, "bench", "tests/golden")
    others = set(" ".join(OTHER_PROGRAMS.values()).split())
    assert named(option) - ours - others == set()
    assert others <= named(option)


def test_documented_variables_exist() -> None:
    variable = r"\bGGSERVE_[A-Z_]*[A-Z]"
    ours = {f"GGSERVE_{name.upper()}" for name in Settings.model_fields}
    ours |= in_sources(variable, "engine", "server", "ggml", "tests")
    assert len(named(variable)) > 10
    assert named(variable) - ours == set()
