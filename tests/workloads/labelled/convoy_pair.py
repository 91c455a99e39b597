"""A convoy: one worker computes, the others need the GIL for microseconds after each of their short sleeps. A unit is one of the short ones' turns.

With `--hog no` no thread computes: the time of a turn is then not due to the GIL.
"""
import time

import pair

HOG = pair.flag("hog", "yes") == "yes"


def setup(index):
    return index


def crunch():
    x = 1
    for i in range(20000):
        x = (x * 3 + i) & 65535
    return False


def reply():
    time.sleep(0.001)


def unit(index):
    return crunch() if HOG and index == 0 else reply()


pair.run(unit, setup)
