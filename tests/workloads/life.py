"""Two threads that compute (worker-0, worker-1) and a main thread that takes commands on stdin, one a line.

fork          forks without exec; the child starts two threads of its own (child-0, child-1) that compute, and prints {"child": pid}
forkthread    the same, forked by a thread that is not the main one
endmain       ends the main thread alone, as pthread_exit does in C; the others continue
finalize      ends the interpreter but not the process: prints `ended`
"""
import os
import sys
import threading

import harness


def burn():
    while True:
        x = 1
        for i in range(20000):
            x = (x * 3 + i) & 65535


def fork():
    if os.fork() == 0:
        for n in range(2):
            harness.thread(burn, name="child-%d" % n)
        harness.wait_for_all()
        harness.fact({"child": os.getpid()})
        os.read(0, 1)  # the parent's stdin too: both end with it
        os._exit(0)


def end_of_main():
    import ctypes
    number = {"x86_64": 60, "aarch64": 93}[os.uname()[4]]
    ctypes.CDLL(None).syscall(number, 0)  # exit(2), not exit_group(2)


def finalize():
    import ctypes
    lib = ctypes.CDLL(None)
    lib.strdup.restype = ctypes.c_void_p
    address = lambda function: ctypes.cast(function, ctypes.c_void_p)
    # In the reverse order, after the interpreter's end.
    lib.__cxa_atexit(address(lib.pause), None, None)
    lib.__cxa_atexit(address(lib.fflush), None, None)
    lib.__cxa_atexit(address(lib.puts), ctypes.c_void_p(lib.strdup(b"ended")), None)
    sys.exit(0)


def guard():
    """Ends the process with its stdin, once the main thread is gone."""
    os.read(0, 1)
    os._exit(0)


for n in range(2):
    harness.thread(burn, name="worker-%d" % n)
harness.ready()
for line in iter(sys.stdin.readline, ""):
    word = line.strip()
    if word == "fork":
        fork()
    elif word == "forkthread":
        threading.Thread(target=fork, name="forker").start()
    elif word == "endmain":
        harness.thread(guard, name="guard")
        harness.wait_for_all()
        end_of_main()
    elif word == "finalize":
        finalize()
os._exit(0)
