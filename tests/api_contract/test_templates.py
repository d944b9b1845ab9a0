"""A model's template that misbehaves: whoever uses it gets a 400, on each route, and soon."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.api.anthropic.errors import ERRORS as ANTHROPIC
from support.api.routes import POSTS, asking, refusal
from support.quick import matrix

BAD = {
    "refuses": "{{ raise_exception('not these') }}",
    "endless": "{% for i in range(1000000000) %}{% for j in range(1000000000) %}x{% endfor %}{% endfor %}",
    "long": "{{ 'x' * 10000000000 }}",
    "doubling": "{% set a = namespace(x='x') %}{% for i in range(64) %}{% set a.x = a.x + a.x %}{% endfor %}",
    "curious": "{{ ().__class__.__mro__[1].__subclasses__() }}",
    "sly": "{{ messages | map(attribute='__class__') | list }}{{ messages | attr('__init__') }}",
    "greedy": "{% include '/etc/passwd' %}",
    "broken": "{% for",
}
CHATS = ("messages", "input")


@pytest.mark.parametrize("kind", matrix(BAD, always=lambda kind: kind in ("refuses", "sly")))
def test_misbehaving_template_is_refused_in_bounded_time(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.jinja"
    path.write_text(BAD[kind])
    with asking(chat_template=path) as ask:
        requests = [route for route in POSTS if "chat_template_kwargs" in route.fields]
        assert len(requests) >= 6
        for route in requests:
            error = refusal(ask(route, route.body()), route)
            assert (error["param"] or "").split("[")[0] in (*CHATS, "the"), error
            assert "template" in error["message"]
            assert str(tmp_path) not in error["message"]
            if not ANTHROPIC.handles(route.path):
                assert error["code"] == "template_failed"
        assert ask.work == []
