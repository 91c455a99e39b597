"""A suite of twenty tests, one of which has threads that contend for the GIL. The plugin must fail that one and no other.

The assertions of every test hold.
"""
import hashlib
import os
import queue
import socket
import subprocess
import sys
import threading
import time
import zlib

import pytest

pytestmark = pytest.mark.gil(max_waiting=0.2)

BLOCK = b"gilprof " * 500000


def until(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield


def crunch(seconds):
    """Computes in Python, without letting go of the GIL by itself."""
    rounds = 0
    for _ in until(seconds):
        total = 0
        for i in range(20000):
            total += i * i % 7
        rounds += total > 0
    return rounds


def digest(seconds):
    """Computes outside the GIL."""
    for _ in until(seconds):
        hashlib.sha256(BLOCK).digest()


def in_threads(count, work, *args):
    threads = [threading.Thread(target=work, args=args, name="worker-%d" % n) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_sleeps():
    time.sleep(0.3)


def test_sleeps_in_threads():
    in_threads(4, time.sleep, 0.3)


def test_computes_alone():
    assert crunch(0.35) > 0


def test_computes_in_one_thread():
    in_threads(1, crunch, 0.35)


def test_hashes_alone():
    digest(0.35)


def test_hashes_in_threads():
    in_threads(2, digest, 0.35)


def test_packs():
    for _ in until(0.35):
        zlib.compress(BLOCK)


def test_packs_in_threads():
    def pack():
        for _ in until(0.35):
            zlib.compress(BLOCK)
    in_threads(2, pack)


def test_waits_for_a_lock():
    lock = threading.Lock()

    def hold():
        with lock:
            time.sleep(0.15)
    in_threads(3, hold)


def test_waits_for_an_event():
    event = threading.Event()
    threading.Timer(0.3, event.set).start()
    assert event.wait(10)


def test_indexes_documents():
    """The offender."""
    in_threads(3, crunch, 1.0)


def test_hands_over_a_queue():
    box = queue.Queue()

    def feed():
        for n in range(20):
            time.sleep(0.02)
            box.put(n)
    thread = threading.Thread(target=feed)
    thread.start()
    assert [box.get() for _ in range(20)] == list(range(20))
    thread.join()


def test_talks_over_a_socket():
    here, there = socket.socketpair()

    def echo():
        while there.recv(10):
            there.send(b"back")
    thread = threading.Thread(target=echo)
    thread.start()
    for _ in range(20):
        time.sleep(0.02)
        here.send(b"forth")
        assert here.recv(10) == b"back"
    here.close()
    thread.join()
    there.close()


def test_waits_for_a_process():
    assert subprocess.call([sys.executable, "-c", "import time; time.sleep(0.3)"]) == 0


def test_reads_a_pipe():
    reading, writing = os.pipe()
    threading.Timer(0.3, os.write, (writing, b"x")).start()
    assert os.read(reading, 1) == b"x"
    os.close(reading)
    os.close(writing)


def test_sorts():
    for _ in until(0.35):
        sorted(range(50000), key=lambda n: -n)


def test_computes_while_another_sleeps():
    thread = threading.Thread(target=time.sleep, args=(0.35,))
    thread.start()
    crunch(0.35)
    thread.join()


def test_computes_one_after_the_other():
    for _ in range(2):
        in_threads(1, crunch, 0.2)


def test_steps_through_a_condition():
    condition, turns = threading.Condition(), []

    def step():
        for n in range(10):
            with condition:
                turns.append(n)
                condition.notify_all()
            time.sleep(0.04)
    thread = threading.Thread(target=step)
    thread.start()
    with condition:
        assert condition.wait_for(lambda: len(turns) == 10, 10)
    thread.join()


def test_builds_strings():
    for _ in until(0.35):
        "".join(str(n) for n in range(10000))
