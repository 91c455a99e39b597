"""One thread of each kind at the same time: Python on the CPU, released hashing, C code that keeps the GIL, a sleeping thread, a thread that waits for a lock.

The kinds are the threads' names.
"""
import hashlib
import os
import threading
import time

import harness

BLOCK = os.urandom(1 << 20)
DIGITS = list(range(20000, 0, -1)) + list(range(20000))
held = threading.Lock()
held.acquire()


def burn():
    while True:
        x = 1
        for i in range(20000):
            x = (x * 3 + i) & 65535


def digest():
    while True:
        hashlib.sha256(BLOCK)


def sort():
    """Inside `sorted` nearly all the time: native code that holds the GIL and cannot be asked to drop it."""
    while True:
        sorted(DIGITS)


def nap():
    while True:
        time.sleep(0.02)


def wait():
    held.acquire()


harness.thread(burn, name="python")
harness.thread(digest, name="released")
harness.thread(sort, name="native-held")
harness.thread(nap, name="sleep")
harness.thread(wait, name="lock")
harness.ready()
harness.stay()
