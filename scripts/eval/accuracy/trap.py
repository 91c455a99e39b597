"""The time that one trap of the watchpoint takes from its thread (`truth.TRAP`), measured by a loop
of stores.

Run as root: `python3 scripts/eval/accuracy/trap.py`. Prints microseconds per store, five times
without the watchpoint and five times with it.
"""
import ctypes
import os
import subprocess
import sys
import time

STORES = 100000
TRACING = "/sys/kernel/tracing"
WATCH = "BEGIN { printf(\"up\\n\"); } watchpoint:%d:4:w /pid == %d/ { @n[tid] = count(); @at[tid] = nsecs; @is[tid] = 16; @sum[tid, 16] = sum(nsecs); }"


def per_store(word):
    begin = time.perf_counter()
    for i in range(STORES):
        word.value = i & 1
    return (time.perf_counter() - begin) / STORES * 1e6


def main():
    if not os.path.exists(TRACING + "/events"):
        script = 'mount -t tracefs tracefs %s; exec "$0" "$@"' % TRACING
        os.execvp("unshare", ["unshare", "--mount", "sh", "-c", script, sys.executable] + sys.argv)
    word = ctypes.c_int(0)
    print("bare     " + " ".join("%.3f" % per_store(word) for _ in range(5)))
    program = WATCH % (ctypes.addressof(word), os.getpid())
    child = subprocess.Popen(["bpftrace", "-e", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    while child.stdout.readline() not in (b"up\n", b""):
        pass
    time.sleep(1)
    print("watched  " + " ".join("%.3f" % per_store(word) for _ in range(5)))
    child.kill()


if __name__ == "__main__":
    main()
