"""Ctrl-C waits for a safe place."""

from __future__ import annotations

import signal

import pytest

from server.terminal.interrupt import DeferredInterrupt


def test_ctrl_c_has_its_effect_at_the_next_check() -> None:
    before = signal.getsignal(signal.SIGINT)
    with DeferredInterrupt() as interrupt:
        interrupt.check()
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            interrupt.check()
    assert signal.getsignal(signal.SIGINT) is before


def test_the_former_handler_is_back_after_an_error() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ValueError, match="x"), DeferredInterrupt():
        raise ValueError("x")
    assert signal.getsignal(signal.SIGINT) is before
