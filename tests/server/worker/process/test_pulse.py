"""What a heartbeat says about the engine's thread, with a clock and a usage of processor that are set."""

from __future__ import annotations

import threading

from server.worker.messages import Heartbeat
from server.worker.process.pulse import Pulse, processor_seconds_and_reads


class Machine:
    def __init__(self) -> None:
        self.now, self.used, self.reads, self.rows = 100.0, 7.0, 3, 0
        self.sent: list[Heartbeat] = []
        self.pulse = Pulse(1.0, self.sent.append, clock=lambda: self.now, usage=self.usage)
        self.pulse.rows = lambda: self.rows

    def usage(self) -> tuple[float, int]:
        return self.used, self.reads

    def after(self, seconds: float, used: float = 0.0, reads: int = 0) -> Heartbeat:
        self.now += seconds
        self.used += used
        self.reads += reads
        return self.pulse.heartbeat()


def test_an_idle_engine_is_not_busy():
    assert Machine().after(5.0) == Heartbeat(busy_s=0.0, quiet_s=5.0, longest_s=0.0, unread_s=5.0)


def test_a_step_that_computes_is_busy_and_not_quiet():
    machine = Machine()
    machine.pulse.begin()
    assert machine.after(1.0, used=0.5) == Heartbeat(1.0, 0.0, 0.0, unread_s=1.0)
    assert machine.after(1.0, used=0.02) == Heartbeat(2.0, 0.0, 0.0, unread_s=2.0)


def test_a_step_that_reads_from_a_disk_is_not_quiet():
    machine = Machine()
    machine.pulse.begin()
    machine.after(1.0)
    assert machine.after(1.0, reads=1) == Heartbeat(2.0, 0.0, 0.0, unread_s=0.0)


def test_a_step_that_hangs_is_quiet():
    machine = Machine()
    machine.pulse.begin()
    machine.after(1.0, used=1.0)
    machine.after(1.0, used=0.0002)
    assert machine.after(1.0, used=0.0002) == Heartbeat(3.0, 2.0, 0.0, unread_s=3.0)


def test_the_longest_operation_is_remembered_but_none_before_the_first_batch():
    machine = Machine()
    machine.pulse.begin()
    machine.now += 60
    machine.pulse.end_loading()
    for seconds, machine.rows in ((9.0, 0), (1.0, 1), (3.0, 8), (2.0, 64), (0.5, 1)):
        machine.pulse.begin()
        machine.now += seconds
        machine.pulse.end()
    machine.pulse.end()  # of no operation
    heartbeat = machine.pulse.heartbeat()
    assert (heartbeat.longest_s, heartbeat.most_rows) == (3.0, 64)


def test_a_batch_counts_once_it_has_been_computed():
    machine = Machine()
    machine.pulse.begin()
    machine.rows = 512
    heartbeat = machine.after(4.0, used=4.0)
    assert (heartbeat.longest_s, heartbeat.rows, heartbeat.most_rows) == (0.0, 512, 0)


def test_heartbeats_are_sent_until_the_server_closes():
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


def test_processor_seconds_of_the_process_are_read():
    seconds, reads = processor_seconds_and_reads()
    assert seconds > 0
    assert reads >= 0
