"""A process that C code forks: fork() through ctypes.PyDLL keeps the GIL and runs none of os.fork's hooks. uWSGI forks its workers so.

In the child the thread that forked and a new one (late) are in `burn`. The parent's other threads, asleep, are not in the child.
`--worker`: a thread that is not the main one (forker) forks. Prints {"child": pid} of the child, which ends with its parent.
"""
import ctypes
import os
import threading
import time

import harness

KILLED_WITH_PARENT = 1, 9  # PR_SET_PDEATHSIG, SIGKILL


def burn():
    while True:
        x = 1
        for i in range(20000):
            x = (x * 3 + i) & 65535


def others_sleep():
    """A mutex of the GIL that another thread has at the fork would stay locked in the child for ever."""
    me, tasks = str(harness.thread_id()), "/proc/self/task"
    for tid in os.listdir(tasks) if os.path.exists(tasks) else []:
        with open("%s/%s/stat" % (tasks, tid)) as stat:
            if tid != me and not stat.read().rsplit(") ", 1)[1].startswith("S"):
                return False
    return True


def fork():
    while not others_sleep():
        pass
    at_work, says_so = os.pipe()
    child = ctypes.PyDLL(None).fork()
    if child == 0:
        ctypes.CDLL(None).prctl(*KILLED_WITH_PARENT)
        late = threading.Thread(target=burn, name="late")
        late.daemon = True
        late.start()
        os.write(says_so, b".")
        burn()
    os.read(at_work, 1)
    harness.fact({"child": child})


def forker():
    fork()
    harness.at_work()
    time.sleep(1000)  # the child ends with the thread that forked it


for n in range(2):
    harness.thread(time.sleep, 1000, name="sleeper-%d" % n)
harness.wait_for_all()
if harness.given("--worker"):
    harness.expect(1)
    threading.Thread(target=forker, name="forker", daemon=True).start()
else:
    fork()
harness.ready()
harness.stay()
