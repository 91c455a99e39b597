"""Threads that compute for a while, for tests of `gilprof gate`: worker-N in burn, and with --more one called latecomer in added.

Prints only `ready`, with --ready, and ends by itself; --end sets the exit code.
"""
import argparse
import sys
import threading
import time


def burn(until):
    x = 1
    while time.monotonic() < until:
        for i in range(2000):
            x = (x * 3 + i) & 65535


def added(until):
    x = 1
    while time.monotonic() < until:
        for i in range(2000):
            x = (x * 5 + i) & 65535


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--more", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--ready", action="store_true")
    parser.add_argument("--end", type=int, default=0)
    args = parser.parse_args()
    until = time.monotonic() + args.seconds
    threads = [threading.Thread(target=burn, args=(until,), name="worker-%d" % n) for n in range(args.threads)]
    threads += [threading.Thread(target=added, args=(until,), name="latecomer-%d" % n) for n in range(args.more)]
    for thread in threads:
        thread.start()
    if args.ready:
        print("ready", flush=True)
    for thread in threads:
        thread.join()
    sys.exit(args.end)


if __name__ == "__main__":
    main()
