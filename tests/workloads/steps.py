"""Two threads that compute, and a main thread that takes commands on stdin, one a line. Prints `ready` when both are at work.

exec          replaces itself by a new run of itself, prints its threads and `ready` again
shell         becomes a shell that becomes `sleep`
fork          starts a child that stays until the parent's end; prints `forked`
churn         starts and ends 250 threads; prints `churned`
exit          ends with 7
hang          ends its interpreter but not itself: an exit handler of C prints `hanging` and waits endlessly
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


def brief():
    x = 1
    for i in range(200):
        x = (x * 3 + i) & 65535


def churn():
    for _ in range(50):
        some = [threading.Thread(target=brief) for _ in range(5)]
        for one in some:
            one.start()
        for one in some:
            one.join()


def fork():
    back, forth = os.pipe()
    if os.fork() == 0:
        os.close(forth)
        os.read(back, 1)  # until the parent's end
        os._exit(0)


def hang():
    import ctypes
    lib = ctypes.CDLL(None)
    lib.strdup.restype = ctypes.c_void_p
    address = lambda function: ctypes.cast(function, ctypes.c_void_p)
    # Handlers run in the reverse order, after the interpreter's end. C needs a string that outlives the interpreter.
    lib.__cxa_atexit(address(lib.pause), None, None)
    lib.__cxa_atexit(address(lib.fflush), None, None)
    lib.__cxa_atexit(address(lib.puts), ctypes.c_void_p(lib.strdup(b"hanging")), None)
    sys.exit(0)


for n in range(harness.number("threads", 2)):
    harness.thread(burn, name="worker-%d" % n)
harness.ready()
for line in iter(sys.stdin.readline, ""):
    word = line.strip()
    if word == "exec":
        os.execv(sys.executable, [sys.executable, "-B", __file__, "--facts"])
    elif word == "shell":
        os.execvp("sh", ["sh", "-c", "exec sleep 1000"])
    elif word == "fork":
        fork()
        os.write(1, b"forked\n")
    elif word == "churn":
        churn()
        os.write(1, b"churned\n")
    elif word == "exit":
        os._exit(7)
    elif word == "hang":
        hang()
os._exit(0)
