"""A pipeline whose stages share one lock that is held while they sleep: they wait for each other, not for the GIL."""
import threading
import time

import pair

shared = threading.Lock()


def unit(_):
    with shared:
        time.sleep(0.002)
    x = 1
    for i in range(500):
        x = (x * 3 + i) & 65535


pair.run(unit)
