"""Unpacks llama.cpp's server tests and makes them comparable.

Where a test compares a number of tokens with a constant, which holds for one vocabulary only, the copy calls
`counted` (see `bench.compat.plugin`): the numbers that llama-server gives are recorded, ours are compared
with them.
"""

from __future__ import annotations

import ast
import hashlib
import shutil
from pathlib import Path

from ggml.fetch import LLAMA, pinned_package

TESTS = f"{LLAMA}/tools/server/tests"
_COUNTS = "prompt_n predicted_n cache_n prompt_tokens completion_tokens cached_tokens n_saved n_restored"
COUNTS = frozenset(_COUNTS.split())
# What is not run, and why.
LEFT_OUT = {
    "test_compat_gcp": "Vertex AI's request format",
    "test_kv_keep_only_active": "log lines of llama-server's slots",
    "test_lora": "needs models from the network",
    "test_mcp_servers": "agent tools inside the server",
    "test_proxy": "agent tools inside the server",
    "test_router": "several models behind one port, from the network",
    "test_sleep": "unloading an idle model",
    "test_speculative": "needs models from the network",
    "test_stream": "the router's resumable streams",
    "test_tools_builtin": "agent tools inside the server",
    "test_vision_api": "needs a vision model",
}


def _counts(node: ast.expr) -> list[str]:
    """Names of token counts that an expression reads."""
    if isinstance(node, ast.Name) and node.id == "total_batch_count":
        return [node.id]
    return [
        part.slice.value
        for part in ast.walk(node)
        if isinstance(part, ast.Subscript)
        and isinstance(part.slice, ast.Constant)
        and part.slice.value in COUNTS
    ]


def _counted(test: ast.expr) -> ast.expr:
    """The same test, with `counted` where a number of tokens is compared."""
    if isinstance(test, ast.BoolOp):
        test.values = [_counted(value) for value in test.values]
    elif isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq):
        names = _counts(test.left)
        if names and not _counts(test.comparators[0]):
            name = names[0] if len(names) == 1 else "total"
            arguments = [ast.Constant(name), test.left, test.comparators[0]]
            return ast.Call(ast.Name("counted", ast.Load()), arguments, [])
    return test


class _Counted(ast.NodeTransformer):
    def visit_Assert(self, node: ast.Assert) -> ast.Assert:
        node.test = _counted(node.test)
        return node


def unpack(folder: Path) -> Path:
    """The folder of the tests, in a tree like llama.cpp's: they look for templates in it."""
    source = pinned_package((TESTS,)) / TESTS
    target = folder / "tools" / "server" / "tests"
    shutil.copytree(source, target)
    (folder / "models").symlink_to(pinned_package() / LLAMA / "models")
    for path in (target / "unit").glob("test_*.py"):
        if path.stem in LEFT_OUT:
            path.unlink()
            continue
        tree = _Counted().visit(ast.parse(path.read_text()))
        path.write_text(ast.unparse(ast.fix_missing_locations(tree)))
    return target


def identity() -> str:
    """Changes with the suite and with what we do to it: results of another one are not comparable."""
    here = Path(__file__).parent
    text = b"".join((here / name).read_bytes() for name in ("suite.py", "plugin.py", "models.py"))
    return hashlib.sha256(text).hexdigest()[:12]
