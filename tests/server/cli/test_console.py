"""Progress without a terminal: a log line every few seconds."""

from __future__ import annotations

import logging

from server.cli.console import LINE_EVERY_S, LoadProgress


def test_a_line_is_logged_at_most_every_few_seconds(caplog):
    caplog.set_level(logging.INFO)
    now = 0.0
    with LoadProgress(bar=False, verb="converting", clock=lambda: now) as progress:
        for step in range(31):
            now = step * LINE_EVERY_S / 10
            progress("m", step / 30, f"layer {step}")
    assert [record.getMessage() for record in caplog.records] == [
        f"converting m: {percent}%, layer {step}" for percent, step in ((33, 10), (67, 20), (100, 30))
    ]


def test_bar_without_a_terminal_is_not_drawn(capsys):
    with LoadProgress(bar=True) as progress:  # stderr is not a terminal here
        progress("m", 0.5, "layer 1")
    progress.close()
    assert capsys.readouterr() == ("", "")


def test_bar_on_a_terminal_is_drawn_and_removed(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with LoadProgress(bar=True) as progress:
        progress("m", 0.5, "layer 1")
        progress("m", 0.6, "layer 2")
        progress.close()
        progress.close()
    assert capsys.readouterr().out == ""
