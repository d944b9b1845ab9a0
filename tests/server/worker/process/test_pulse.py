"""What a heartbeat says about the engine's thread, with a clock and a usage of processor that are set."""

from __future__ import annotations

import threading

from server.worker.messages import Heartbeat
from server.worker.process.pulse import Pulse, processor_seconds_and_reads


class Machine:
    def __init__(self) -> None:
        self.now, self.used, self.reads = 100.0, 7.0, 3
        self.sent: list[Heartbeat] = []
        self.pulse = Pulse(1.0, self.sent.append, clock=lambda: self.now, usage=self.usage)

    def usage(self) -> tuple[float, int]:
        return self.used, self.reads

    def after(self, seconds: float, used: float = 0.0, reads: int = 0) -> Heartbeat:
        self.now += seconds
        self.used += used
        self.reads += reads
        return self.pulse.heartbeat()


def test_an_idle_engine_is_not_busy():
    assert Machine().after(5.0) == Heartbeat(0.0, 5.0, 0.0)


def test_a_step_that_computes_is_busy_and_not_quiet():
    machine = Machine()
    machine.pulse.begin()
    assert machine.after(1.0, used=0.5) == Heartbeat(1.0, 0.0, 0.0)
    assert machine.after(1.0, used=0.02) == Heartbeat(2.0, 0.0, 0.0)


def test_a_step_that_reads_from_a_disk_is_not_quiet():
    machine = Machine()
    machine.pulse.begin()
    machine.after(1.0)
    assert machine.after(1.0, reads=1).quiet_s == 0.0


def test_a_step_that_hangs_is_quiet():
    machine = Machine()
    machine.pulse.begin()
    machine.after(1.0, used=1.0)
    machine.after(1.0, used=0.0002)
    assert machine.after(1.0, used=0.0002) == Heartbeat(3.0, 2.0, 0.0)


def test_the_longest_operation_is_remembered_but_not_loading():
    machine = Machine()
    machine.pulse.begin()
    machine.now += 60
    machine.pulse.end_loading()
    for seconds in (1.0, 3.0, 2.0):
        machine.pulse.begin()
        machine.now += seconds
        machine.pulse.end()
    machine.pulse.end()  # of no operation
    assert machine.pulse.heartbeat().longest_s == 3.0


def test_heartbeats_are_sent_until_the_server_is_gone():
    sent = threading.Semaphore(0)
    ended = threading.Event()

    def send(heartbeat: Heartbeat) -> None:
        if ended.is_set():
            raise BrokenPipeError
        sent.release()

    pulse = Pulse(0.001, send)
    pulse.start()
    for _ in range(3):
        assert sent.acquire(timeout=60)
    ended.set()
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "heartbeats"]
    thread.join(60)
    assert not thread.is_alive()


def test_the_process_uses_its_processor():
    seconds, reads = processor_seconds_and_reads()
    assert seconds > 0
    assert reads >= 0
