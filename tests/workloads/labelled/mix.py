"""A part of the time with the GIL released, in turns of about a millisecond: hashing (`--released PERCENT`) or asleep (`--asleep PERCENT`) beside Python.

`--rounds N` and `--bytes N` set the amount of Python and of hashing in a millisecond. Measured again in each run, these amounts would differ by tens of per cent on a
machine with an uneven pace, and so would the program. `--calibrate` measures them, prints those arguments and ends.
"""
import hashlib
import sys
import time

import pair

BLOCK = bytes(1 << 22)


def python(rounds):
    x = 1
    for i in range(rounds):
        x = (x * 3 + i) & 65535


def per_ms(call, amount):
    """How much of a call takes a millisecond of CPU time here, in the median: the pace of a shared machine is uneven."""
    times = []
    for _ in range(51):
        begun = time.thread_time()
        call(amount)
        times.append(time.thread_time() - begun)
    return max(1, int(amount * 1e-3 / sorted(times)[25]))


def hash_of(size):
    hashlib.sha256(memoryview(BLOCK)[:size]).digest()


ROUNDS = pair.flag("rounds", 0) or per_ms(python, 20000)
BYTES = pair.flag("bytes", 0) or min(per_ms(hash_of, 1 << 20), len(BLOCK) // 4)
if "--calibrate" in sys.argv:
    sys.exit(print("--rounds %d --bytes %d" % (ROUNDS, BYTES)))
RELEASED, ASLEEP = pair.flag("released", 0), pair.flag("asleep", 0)


def turn(part):
    """A millisecond, of which a part is without the GIL."""
    if ASLEEP:
        time.sleep(part * 1e-3)
    elif part:
        hash_of(int(part * BYTES))
    if part < 1:
        python(int((1 - part) * ROUNDS))


def unit(_):
    """Ten milliseconds. The parts are spread over them: seven and ten have no common divisor."""
    share = (RELEASED or ASLEEP) / 10
    for n in range(10):
        turn(min(1.0, max(0.0, share - n * 7 % 10)))


pair.run(unit)
