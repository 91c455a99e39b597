"""Shared by all workloads: threads that report when they are at work, the handshake, and the end.

A workload prints lines of facts (JSON) that a test may need, then "ready\n" once every thread is at work. It ends when its
stdin closes, which also happens when the test that started it ends, in whatever way.
Runs on 2.7 and 3.6 too, where only the holder and the stacks are measured.
"""
import json
import os
import sys
import threading
import time

_at_work = threading.Semaphore(0)
_expected = [0]
_tids = {}


def thread_id():
    """The kernel's id of the calling thread; threading.get_native_id came with 3.8."""
    try:
        return threading.get_native_id()
    except AttributeError:
        import ctypes
        number = {"x86_64": 186, "aarch64": 178}[os.uname()[4]]
        return ctypes.CDLL(None).syscall(number)


def begin(target, args):
    """The first frame of a workload's own in each thread."""
    if given("--facts"):
        _tids[threading.current_thread().name] = thread_id()
    _at_work.release()
    target(*args)


def thread(target, *args, **how):
    """Starts a thread that counts as at work just before it calls `target`."""
    _expected[0] += 1
    new = threading.Thread(target=begin, args=(target, args), name=how.get("name"))
    new.daemon = True
    new.start()
    return new


def at_work():
    """For threads that were not started by `thread`, counted with `expect`."""
    _at_work.release()


def expect(count):
    _expected[0] += count


def fact(what):
    """One line of JSON for the test. Written whole, past any buffer: another thread may be in the middle of a line."""
    line = (json.dumps(what) + "\n").encode()
    while line:
        line = line[os.write(1, line):]


def runtime():
    """Where `_PyRuntime` is, by the dynamic linker; 0 where there is none (before 3.7) or no ctypes to ask with."""
    try:
        import ctypes
        return ctypes.addressof(ctypes.c_char.in_dll(ctypes.pythonapi, "_PyRuntime"))
    except (ImportError, ValueError):
        return 0


def wait_for_all():
    for _ in range(_expected[0]):
        _at_work.acquire()
    _expected[0] = 0


def ready():
    """The handshake. With `--facts` on the command line it says first which kernel thread has which name."""
    wait_for_all()
    if _tids:
        fact({"tids": _tids})
    os.write(1, b"ready\n")


def stay(count=None):
    """Waits for the end of stdin, then ends at once: threads still at work are not joined.

    `count()` is work done so far; how much was done since the handshake, and in how many seconds of wall and of CPU time, is said at the end,
    and whenever it is asked for by a `?`.
    """
    clock = getattr(time, "process_time", None) or time.clock
    start, start_cpu = time.time(), clock()
    before = count() if count else 0
    while True:
        said = os.read(0, 4096)
        if count and (b"?" in said or not said):
            fact({"seconds": time.time() - start, "cpu": clock() - start_cpu, "done": count() - before})
        if not said:
            break
    os._exit(0)


def number(name, default):
    """`--name N` on the command line. Not argparse: it would be most of the start-up time on slow machines."""
    flag = "--" + name
    return int(sys.argv[sys.argv.index(flag) + 1]) if flag in sys.argv else default


def given(flag):
    return flag in sys.argv
