"""Threads that wait for locks that are not the GIL: a Lock, a Condition, an Event, a queue, another thread's end.

None of them is ever released. `--turns` adds two threads that pass a Lock to each other a few hundred times a second.
"""
import threading
import time

import harness

try:
    import queue
except ImportError:  # 2.7
    import Queue as queue

held = threading.Lock()
held.acquire()
condition = threading.Condition()
event = threading.Event()
empty = queue.Queue()
ping = threading.Semaphore(1)
pong = threading.Semaphore(0)


def wait_lock():
    held.acquire()


def wait_condition():
    with condition:
        condition.wait()


def wait_event():
    event.wait()


def wait_queue():
    empty.get()


def wait_join(other):
    other.join()


def take_turns(mine, theirs):
    while True:
        mine.acquire()
        time.sleep(0.001)
        theirs.release()


first = harness.thread(wait_lock, name="lock")
harness.thread(wait_condition, name="condition")
harness.thread(wait_event, name="event")
harness.thread(wait_queue, name="queue")
harness.thread(wait_join, first, name="join")
if harness.given("--turns"):
    harness.thread(take_turns, ping, pong, name="turn-0")
    harness.thread(take_turns, pong, ping, name="turn-1")
harness.ready()
harness.stay()
