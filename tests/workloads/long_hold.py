"""The GIL held for minutes by one thread inside one C call, `--how sleep` asleep in the kernel or `--how sum` computing; two others need it.

`ready` is written by a C call that keeps the GIL too, so that only the long hold follows it. No thread of this program
can see its stdin close, so a timer of the kernel ends it.
"""
import ctypes
import sys
import threading
import time

import harness

libc = ctypes.PyDLL(None)  # calls keep the GIL, unlike CDLL's
libc.alarm(120)
how = sys.argv[sys.argv.index("--how") + 1]


def hold():
    if how == "sleep":
        libc.write(1, b"ready\n", 6)
        libc.sleep(600)
    else:
        numbers = range(10 ** 12)
        libc.write(1, b"ready\n", 6)
        sum(numbers)


def want():
    while True:
        time.sleep(0.001)


def wait_and_hold():
    harness.wait_for_all()
    hold()


for n in range(2):
    harness.thread(want, name="waiter-%d" % n)
threading.Thread(target=wait_and_hold, name="holder", daemon=True).start()
time.sleep(600)
