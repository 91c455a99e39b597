"""Targets that are compared take turns of a fraction of a second; all but one are stopped.

The speed of each CPU of a shared machine changes from second to second, and by far more than the
effect to be measured. Short turns spread that change evenly over all targets.
"""
import collections
import math
import time

import targets

# Seconds of a turn.
TURN = 0.2
# The share of the CPUs' time that the hypervisor may steal during one turn of each target. Above
# that the turns are repeated, up to TRIES times.
STOLEN, TRIES = 0.04, 3


# Units of work, the seconds of wall and of CPU time that they took, and the units of each worker.
# CPU time is NaN, and the last is empty, where the workload does not report it.
Work = collections.namedtuple("Work", "done seconds cpu each")


def work_during(target, seconds):
    first = target.progress()
    time.sleep(seconds)
    last = target.progress()
    sums = (last.get(name, math.nan) - first.get(name, math.nan) for name in Work._fields[:-1])
    return Work(*sums, tuple(now - then for now, then in zip(last.get("each", ()), first.get("each", ()))))


def total(works):
    return Work(*(sum(one[n] for one in works) for n in range(3)), tuple(map(sum, zip(*(one.each for one in works)))))


def one_turn_each(running, order):
    """Lets each stopped target work for one turn: the work of each, and the stolen share of the
    CPUs' time.
    """
    found, before = {}, targets.ticks()
    for kind in order:
        running[kind].resume()
        found[kind] = work_during(running[kind], TURN)
        running[kind].pause()
    return found, targets.stolen(before, targets.ticks())


def undisturbed(running, order):
    """`one_turn_each`, repeated where too much time was stolen: the try with the least stolen time.
    """
    tries = []
    while len(tries) < TRIES and not any(stolen <= STOLEN for _, stolen in tries):
        tries.append(one_turn_each(running, order))
    return min(tries, key=lambda one: one[1])
