"""Threads that compute in pure Python.

Only one holds the GIL at a time, so two threads do no more work than one; see `cpu_processes.py`.
"""
import argparse
import os
import threading
import time


def burn(index, done, deadline):
    """Computes without a call that releases the GIL."""
    while time.monotonic() < deadline:
        total = 0
        for i in range(50000):
            total += i * i % 7
        done[index] += 1


def work(index, done, deadline, all_run):
    all_run.wait()
    burn(index, done, deadline)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2, help="how many threads (default: 2)")
    parser.add_argument("--seconds", type=float, default=10, help="how long; 0 runs until Ctrl-C (default: 10)")
    parser.add_argument("--ready-fd", type=int, default=os.environ.get("READY"), metavar="FD",
                        help="write `ready` to this descriptor once all threads run (default: $READY)")
    return parser.parse_args()


def main():
    args = arguments()
    start = time.monotonic()
    deadline = start + (args.seconds or float("inf"))
    done = [0] * args.threads
    all_run = threading.Barrier(args.threads + 1)
    threads = [threading.Thread(target=work, args=(i, done, deadline, all_run), name="worker-%d" % i, daemon=True)
               for i in range(args.threads)]
    for thread in threads:
        thread.start()
    all_run.wait()
    if args.ready_fd is not None:
        os.write(args.ready_fd, b"ready\n")
    try:
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:
        pass
    seconds = time.monotonic() - start
    print("%d threads, %.1f s: %.0f rounds/s" % (args.threads, seconds, sum(done) / seconds))


if __name__ == "__main__":
    main()
