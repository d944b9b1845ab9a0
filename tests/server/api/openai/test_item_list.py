"""Pages of lists of items."""

from __future__ import annotations

import pytest

from server.api.openai.item_list import PageQuery
from server.errors import ApiError

ITEMS = {name: name.upper() for name in "abcde"}


@pytest.mark.parametrize(
    ("limit", "order", "after", "data", "has_more"),
    [
        (2, "asc", None, ["A", "B"], True),
        (2, "desc", None, ["E", "D"], True),
        (2, "asc", "c", ["D", "E"], False),
        (20, "desc", "c", ["B", "A"], False),
        (1, "asc", "e", [], False),
    ],
)
def test_page_follows_limit_order_and_after(limit, order, after, data, has_more):
    page = PageQuery(limit, order, after).of(ITEMS)
    assert (page["data"], page["has_more"]) == (data, has_more)
    first, last = (data[0].lower(), data[-1].lower()) if data else (None, None)
    assert (page["first_id"], page["last_id"]) == (first, last)


def test_page_after_an_unknown_item_is_refused():
    with pytest.raises(ApiError) as caught:
        PageQuery(20, "asc", "z").of(ITEMS)
    assert (caught.value.status_code, caught.value.param) == (400, "after")
