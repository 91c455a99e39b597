"""A program that does the same units of work in threads or in processes: `--as threads` (default) or `--as processes`, `--workers N`.

`run(unit, setup)`: each worker creates its state by `setup(index)` and then does `unit(state)` endlessly; one that returns `False` is counted for its worker, but is not the program's work. The handshake is
that of `harness.py`: `ready` when every worker has done one unit, a line of facts for each `?` (seconds, units, and units of each worker since then), the end with stdin.
"""
import ctypes
import json
import mmap
import os
import signal
import struct
import sys
import threading
import time
import traceback

PR_SET_PDEATHSIG = 1


def flag(name, default):
    """`--name VALUE` on the command line."""
    return type(default)(sys.argv[sys.argv.index("--" + name) + 1]) if "--" + name in sys.argv else default


PROCESSES = flag("as", "threads") == "processes"
WORKERS = flag("workers", 2)


class Counts:
    """Units done, by worker, where threads and forked processes can both count."""

    def __init__(self, workers):
        self.room, self.workers = mmap.mmap(-1, 8 * workers), workers

    def set(self, index, count):
        struct.pack_into("Q", self.room, 8 * index, count)

    def each(self):
        return struct.unpack_from("%dQ" % self.workers, self.room)

    def sum(self):
        return sum(self.each())


def work(unit, setup, index, done, turns, at_work, program):
    try:
        state, count, turn = setup(index), 0, 0
        unit(state)
        at_work()
        while True:
            count += unit(state) is not False
            turn += 1
            done.set(index, count)
            turns.set(index, turn)
    except BaseException:
        # The others would go on, and the program would seem to work.
        traceback.print_exc()
        os.kill(program, signal.SIGKILL)


def end_with_parent():
    """However that ends. To be called in a new process."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def forked(work, *arguments):
    """Runs it in a new process, which ends with this one. To be called before there is any thread."""
    parent = os.getpid()
    if os.fork() == 0:
        end_with_parent()
        if os.getppid() == parent:
            work(*arguments)
        os._exit(0)


def in_process(*how):
    forked(work, *how)


def in_thread(*how):
    threading.Thread(target=work, args=how, name="worker-%d" % how[2], daemon=True).start()


def run(unit, setup=lambda index: None, workers=None, at_end=lambda: None):
    """Does not return."""
    workers = WORKERS if workers is None else workers
    done, turns, (there, here) = Counts(workers), Counts(workers), os.pipe()
    for index in range(workers):
        (in_process if PROCESSES else in_thread)(unit, setup, index, done, turns, lambda: os.write(here, b"."), os.getpid())
    left = workers
    while left:
        left -= len(os.read(there, left))
    stay(done.sum, at_end, turns.each)


def stay(count, at_end=lambda: None, each=lambda: ()):
    """Says that all are at work, answers until stdin ends, cleans up, and ends the program."""
    os.write(1, b"ready\n")
    start, before, before_each = time.time(), count(), each()
    while True:
        said = os.read(0, 4096)
        if not said:
            at_end()
            os._exit(0)
        turns = [now - then for now, then in zip(each(), before_each)]
        os.write(1, (json.dumps({"seconds": time.time() - start, "done": count() - before, "each": turns}) + "\n").encode())
