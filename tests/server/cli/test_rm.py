"""`ggserve rm`: one line for each model that is gone."""

from __future__ import annotations

import pytest

from server.cli import rm
from server.models.errors import ModelNotFound


def test_rm_removes_each_model_and_stops_at_the_first_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def delete(name: str) -> tuple[str, int]:
        if name == "absent":
            raise ModelNotFound("absent is not here")
        return f"hf:{name}", 98_000_000

    monkeypatch.setattr(rm, "delete", delete)
    assert rm.run(["a", "b"]) == 0
    assert capsys.readouterr().out == ("removed hf:a: 98 MB freed\nremoved hf:b: 98 MB freed\n")
    with pytest.raises(ModelNotFound):
        rm.run(["a", "absent", "b"])
    assert capsys.readouterr().out == "removed hf:a: 98 MB freed\n"
