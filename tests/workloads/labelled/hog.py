"""Short tasks beside a thread that computes for ever. A unit is one round of the latter; the tasks are a group of their own."""
import threading
import time

import pair


def setup(index):
    threading.current_thread().name = "task-%d" % index if index else "hog"
    return index


def crunch():
    x = 1
    for i in range(20000):
        x = (x * 3 + i) & 65535


def task():
    x = 1
    for i in range(2000):
        x = (x * 3 + i) & 65535
    time.sleep(0.002)


def unit(index):
    if index:
        task()
        return False
    crunch()


pair.run(unit, setup)
