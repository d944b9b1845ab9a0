"""The documentation names files and tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *(ROOT / folder / "README.md" for folder in ("bench", "models", "tests/golden")),
]
TOP = ("engine", "server", "ggml", "bench", "docs", "tests", "models", "configs", "deploy", ".github")
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


def test_documented_tests_exist() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    references = re.findall(r"`(tests/[\w./]+)(?:::(\w+))?`", text)
    assert len(references) > 30
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
def test_relative_links_lead_somewhere(path: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if re.match(r"\w+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


def test_the_readme_is_short() -> None:
    assert (ROOT / "README.md").read_text(encoding="utf-8").count("\n") < 150
