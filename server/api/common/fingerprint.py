"""`system_fingerprint`: where it differs, the same seed may give another text."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec

_MATTERS = ("architecture", "n_params", "size_bytes", "n_ctx", "kv_type", "placement", "attention")


@cache
def _version() -> str:
    from server.cli.main import version

    return version()


def fingerprint(info: Mapping[str, Any] | None) -> str:
    """Of a model's description: version, weights, cache, and the device of each layer."""
    facts = [_version(), *((info or {}).get(name) for name in _MATTERS)]
    return "b" + hashlib.sha256(msgspec.json.encode(facts)).hexdigest()[:10]
