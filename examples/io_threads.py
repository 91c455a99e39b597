"""Threads that mostly wait: for a socket, a timer, a file.

A thread that waits in the kernel has released the GIL, so many such threads can share it.
"""
import argparse
import os
import socket
import tempfile
import threading
import time


def serve(connection):
    """A slow service at the other end of the socket, with 5 ms for each answer."""
    while True:
        request = connection.recv(64)
        if not request:
            return
        time.sleep(0.005)
        connection.sendall(request)


def fetch(connection):
    """One request, and the wait for its answer."""
    connection.sendall(b"hello")
    return connection.recv(64)


def work(index, done, deadline, all_run):
    ours, theirs = socket.socketpair()
    threading.Thread(target=serve, args=(theirs,), name="service-%d" % index, daemon=True).start()
    with tempfile.TemporaryFile() as log:
        all_run.wait()
        while time.monotonic() < deadline:
            answer = fetch(ours)
            log.seek(0)
            log.write(answer)
            log.flush()
            time.sleep(0.005)
            done[index] += 1


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=8, help="how many threads (default: 8)")
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
    threads = [threading.Thread(target=work, args=(i, done, deadline, all_run), name="client-%d" % i, daemon=True)
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
    print("%d threads, %.1f s: %.0f requests/s" % (args.threads, seconds, sum(done) / seconds))


if __name__ == "__main__":
    main()
