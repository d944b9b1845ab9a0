"""When an engine process counts as stalled and as hung. No process; the clock is set."""

from __future__ import annotations

import pytest

from server.worker.messages import Heartbeat
from server.worker.supervision.liveness import Liveness, Verdict

T = 10.0  # the default timeout
CPU = {"placement": ["CPU", "CPU"]}
GPU = {"placement": ["CUDA0", "CUDA0"]}
RPC = {"placement": ["RPC0[10.0.0.1:50052]"]}


class Engine:
    """A process that sends a heartbeat every second, as seen by the server."""

    def __init__(self, info: dict[str, list[str]] | None = None) -> None:
        self.now = 1000.0
        self.liveness = Liveness(T, lambda: self.now)
        if info is not None:
            self.liveness.on_loaded(info)

    def silent(self, seconds: float) -> Verdict:
        """Nothing comes for so long."""
        verdict = Verdict()
        for _ in range(round(seconds * 4)):
            self.now += 0.25
            verdict = self.liveness.check()
        return verdict

    def step(
        self, seconds: float, *, computes: bool, longest_s: float = 0.0, begun_s: float = 0.0, **rows: int
    ) -> Verdict:
        """A step, of which `begun_s` have passed already, runs on for so long and does not end.

        rows: of this one and the largest before, see `Heartbeat`. Nothing is read from a disk.
        """
        verdict = Verdict()
        for i in range(1, round(seconds) + 1):
            verdict = self.silent(1.0)
            busy_s = begun_s + i
            quiet_s = 0.0 if computes else busy_s
            self.liveness.on_heartbeat(Heartbeat(busy_s, quiet_s, longest_s, busy_s, **rows))
        return self.liveness.check() if seconds else verdict


def test_a_stopped_process_is_noticed_within_10_s_and_killed_soon_after():
    engine = Engine(CPU)
    assert engine.silent(4.5) == Verdict()
    verdict = engine.silent(1.0)
    assert (verdict.reason, verdict.hung) == ("the engine has sent no heartbeat for 5.5 s", False)
    assert not engine.silent(4.5).hung
    assert engine.silent(0.25).hung


def test_process_that_wakes_up_in_time_is_healthy_again():
    engine = Engine(CPU)
    assert engine.silent(9.0).reason
    engine.liveness.on_heartbeat(Heartbeat(0.0, 9.0, 0.0))
    assert engine.liveness.check() == Verdict()


@pytest.mark.parametrize("info", [CPU, GPU], ids=["cpu", "gpu"])
def test_a_first_step_of_minutes_that_computes_is_not_a_hang(info):
    assert Engine(info).step(590, computes=True) == Verdict()
    assert Engine(info).step(605, computes=True).hung


def test_a_step_that_spins_on_the_processor_is_noticed_within_10_s_and_killed_after_30_s():
    engine = Engine(CPU)
    verdict = engine.step(6, computes=True, longest_s=0.1, rows=1, most_rows=32)
    assert verdict == ("one step of the engine has taken 6.0 s so far; the longest before took 0.1 s", False)
    assert not engine.step(24, computes=True, longest_s=0.1, begun_s=6).hung
    assert engine.step(1, computes=True, longest_s=0.1, begun_s=30).hung


def test_a_step_that_computes_may_take_thirty_times_as_long_as_the_longest():
    engine = Engine(CPU)
    assert engine.step(20, computes=True, longest_s=2.0, rows=1, most_rows=1) == Verdict()
    verdict = engine.step(40, computes=True, longest_s=2.0, begun_s=20)
    assert verdict.reason
    assert not verdict.hung
    assert engine.step(1, computes=True, longest_s=2.0, begun_s=60).hung


def test_a_first_long_prompt_takes_longer_than_single_tokens():
    engine = Engine(CPU)
    assert engine.step(100, computes=True, longest_s=0.1, rows=128, most_rows=1) == Verdict()
    assert engine.step(300, computes=True, longest_s=0.1, begun_s=100, rows=2048, most_rows=1) == Verdict()
    assert engine.step(205, computes=True, longest_s=0.1, begun_s=400, rows=2048, most_rows=1).hung


def test_a_step_that_reads_evicted_weights_is_not_a_hang():
    engine = Engine(CPU)
    for i in range(1, 590):
        assert engine.silent(1.0) == Verdict()
        engine.liveness.on_heartbeat(Heartbeat(float(i), 0.0, 0.1, unread_s=0.5, rows=1, most_rows=512))
    assert engine.liveness.check() == Verdict()


def test_timeout_grows_with_the_longest_step():
    assert Engine(CPU).step(1100, computes=True, longest_s=120.0) == Verdict()
    assert Engine(CPU).step(1210, computes=True, longest_s=120.0).hung


@pytest.mark.parametrize("info", [CPU, GPU], ids=["cpu", "gpu"])
def test_a_step_that_does_nothing_is_noticed_within_10_s_and_killed_after_30_s(info):
    engine = Engine(info)
    verdict = engine.step(6, computes=False, longest_s=0.1)
    assert verdict == ("one step of the engine has taken 6.0 s so far; the longest before took 0.1 s", False)
    assert not engine.step(24, computes=False, longest_s=0.1, begun_s=6).hung
    assert engine.step(1, computes=False, longest_s=0.1, begun_s=30).hung


def test_busy_loop_counts_as_a_hang_only_if_a_gpu_computes():
    assert Engine(GPU).step(31, computes=True, longest_s=0.1, rows=2048, most_rows=1).hung
    assert not Engine(CPU).step(31, computes=True, longest_s=0.1, rows=2048, most_rows=1).hung


def test_timeout_of_a_silent_step_follows_earlier_steps():
    engine = Engine(GPU)
    assert engine.step(50, computes=False, longest_s=6.0) == Verdict()
    assert not engine.step(9, computes=False, longest_s=6.0, begun_s=50).hung
    assert engine.step(2, computes=False, longest_s=6.0, begun_s=59).hung


def test_first_step_on_another_machine_is_reported_but_not_a_hang():
    verdict = Engine(RPC).step(500, computes=False)
    assert verdict.reason
    assert not verdict.hung


def test_after_a_step_was_cut_off_the_next_may_take_twice_as_long():
    engine = Engine(GPU)
    assert engine.step(31, computes=False).hung
    engine.liveness.on_killed()
    engine.liveness.on_start()
    engine.liveness.on_loaded(GPU)
    assert not engine.step(60, computes=False).hung
    assert engine.step(1, computes=False, begun_s=60).hung
    engine.now += 600
    engine.liveness.on_start()
    engine.liveness.on_loaded(GPU)
    assert engine.step(31, computes=False).hung


def test_new_message_of_the_engine_thread_ends_the_step():
    engine = Engine(GPU)
    assert engine.step(20, computes=False).reason
    engine.liveness.on_progress()
    assert engine.liveness.check() == Verdict()
    assert engine.liveness.step_s == 0.0


def test_loading_that_holds_the_gil_and_computes_is_not_a_hang():
    assert Engine().silent(29) == Verdict()
    assert Engine().silent(61).hung
    assert Engine().step(3600, computes=True) == Verdict()


def test_loading_that_does_nothing_is_killed_after_30_s():
    engine = Engine()
    verdict = engine.step(11, computes=False)
    assert verdict == ("loading has neither computed nor read anything for 11.0 s", False)
    assert engine.step(20, computes=False, begun_s=11).hung


def test_stopped_server_does_not_count_as_an_engine_hang():
    engine = Engine(CPU)
    engine.now += 3600
    engine.liveness.on_heartbeat(Heartbeat(3600.0, 3600.0, 0.1))  # the engine was stopped in a step, too
    assert engine.liveness.check() == Verdict()
    assert engine.silent(4) == Verdict()
