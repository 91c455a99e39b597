"""Processes below one: --idle N that sleep, and --busy N whose threads contend for their GIL."""
import os
import threading
import time

import harness


def rest():
    while os.getppid() == parent:
        time.sleep(60)


def burn():
    while os.getppid() == parent:
        sum(range(1000))


def contend():
    for _ in range(2):
        threading.Thread(target=burn).start()
    burn()


def main():
    pids = []
    for work in [rest] * harness.number("idle", 0) + [contend] * harness.number("busy", 0):
        pid = os.fork()
        if pid == 0:
            work()
            os._exit(0)
        pids.append(pid)
    harness.fact({"children": pids})
    harness.ready()
    while os.read(0, 4096):
        pass
    for pid in pids:
        os.kill(pid, 9)


parent = os.getpid()
if __name__ == "__main__":
    main()
