"""A convoy: one worker computes, the others want the GIL for microseconds after each of their short sleeps. A unit is one of the short ones' turns."""
import time

import pair


def setup(index):
    return index


def unit(index):
    if index == 0:
        x = 1
        for i in range(20000):
            x = (x * 3 + i) & 65535
    else:
        time.sleep(0.001)


pair.run(unit, setup)
