"""Ids of what the server makes."""

from __future__ import annotations

import re

from server.ids import new_id


def test_id_is_the_prefix_and_24_unique_digits() -> None:
    ids = {new_id("resp_") for _ in range(1000)}
    assert len(ids) == 1000
    assert all(re.fullmatch("resp_[0-9a-f]{24}", id) for id in ids)
