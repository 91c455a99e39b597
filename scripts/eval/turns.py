"""What is compared takes turns of a fraction of a second, all but one paused.

The pace of each CPU of a shared machine changes from second to second, and by far more than what is to be measured; so short turns all meet it.
"""
import collections
import json
import math
import time

import targets

# Seconds of a turn.
SLICE = 0.2
# The share of the CPUs' time that a hypervisor may take while each has its turn; else they are done again, so often.
STOLEN, TRIES = 0.04, 3


# Units of work done, and the seconds of wall and of CPU time that they took; of CPU time NaN where the workload does not say.
Work = collections.namedtuple("Work", "done seconds cpu")


def asked(target):
    """What it has done since it was ready, and the seconds that took, by its own clocks."""
    target.ask(b"?")
    line = target.child.stdout.readline()
    if not line:
        raise targets.Failed("the workload ended: %s" % " ".join(target.command))
    return json.loads(line)


def work_of(target, seconds):
    """What it does meanwhile."""
    first = asked(target)
    time.sleep(seconds)
    last = asked(target)
    return Work(*(last.get(name, math.nan) - first.get(name, math.nan) for name in Work._fields))


def one_each(at, order):
    """Each of the paused targets works for a slice: what each does, and the share of the CPUs' time that was stolen meanwhile."""
    found, before = {}, targets.ticks()
    for kind in order:
        at[kind].resume()
        found[kind] = work_of(at[kind], SLICE)
        at[kind].pause()
    return found, targets.stolen(before, targets.ticks())


def undisturbed(at, order):
    """`one_each`, again where too much was stolen: the one of which the least was."""
    tries = []
    while len(tries) < TRIES and not any(stolen <= STOLEN for _, stolen in tries):
        tries.append(one_each(at, order))
    return min(tries, key=lambda one: one[1])
