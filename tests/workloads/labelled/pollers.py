"""A thread that computes, whose work is counted, beside two that poll: they sleep for 50 us at a time."""
import threading
import time

import pair


def setup(index):
    threading.current_thread().name = "poller-%d" % index if index else "victim"
    return index


def unit(index):
    if index:
        time.sleep(50e-6)
        return False
    x = 1
    for i in range(20000):
        x = (x * 3 + i) & 65535


pair.run(unit, setup)
