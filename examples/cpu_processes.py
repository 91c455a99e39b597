"""The work of `cpu_threads.py` in a multiprocessing.Pool: each process has its own GIL.

Compare the rounds/s of the two programs.
"""
import argparse
import multiprocessing
import os
import signal
import time


def burn(deadline):
    """The same rounds as in cpu_threads.py. Returns their number."""
    done = 0
    while time.monotonic() < deadline:
        total = 0
        for i in range(50000):
            total += i * i % 7
        done += 1
    return done


def join_in(all_run):
    """Runs once in each new process, which leaves Ctrl-C to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    all_run.wait()


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", "--processes", type=int, default=2, help="how many processes (default: 2)")
    parser.add_argument("--seconds", type=float, default=10, help="how long; 0 runs until Ctrl-C (default: 10)")
    parser.add_argument("--ready-fd", type=int, default=os.environ.get("READY"), metavar="FD",
                        help="write `ready` to this descriptor once all processes run (default: $READY)")
    return parser.parse_args()


def main():
    args = arguments()
    all_run = multiprocessing.Barrier(args.threads + 1)
    with multiprocessing.Pool(args.threads, initializer=join_in, initargs=(all_run,)) as pool:
        all_run.wait()
        start = time.monotonic()
        deadline = start + (args.seconds or float("inf"))
        results = pool.map_async(burn, [deadline] * args.threads, chunksize=1)
        if args.ready_fd is not None:
            os.write(args.ready_fd, b"ready\n")
        try:
            done = sum(results.get())
        except KeyboardInterrupt:
            return  # the counts are in the processes, which end with the pool
        seconds = time.monotonic() - start
    print("%d processes, %.1f s: %.0f rounds/s" % (args.threads, seconds, done / seconds))


if __name__ == "__main__":
    main()
