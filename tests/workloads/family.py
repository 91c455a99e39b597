"""A process that sleeps while its children compute.

--how pool     two workers of a multiprocessing pool, forked
      tree     a shell that runs a Python, which forks another
      chain    one Python after another, each for 0.3 s of CPU time
      other    two shells, which are not Python; with --own one
--seconds N    ends after N tenths of a second; else when stdin closes
--own          a thread of this process computes too, all the time, and the children only a little
"""
import functools
import multiprocessing
import os
import subprocess
import sys
import threading
import time

import harness


def runs(pid):
    try:
        os.kill(pid, 0)
        return True
    except OSError:
        return False


def burn(seconds, first, clock=time.time):
    """Until `first`, the process that started all others, is gone."""
    until = clock() + seconds
    while clock() < until and runs(first):
        for _ in range(20000):
            pass


def child(seconds):
    """Runs this file as a child that computes; prints its pid first."""
    return [sys.executable, "-B", os.path.abspath(__file__), "--child", str(seconds), "--first", str(os.getpid())]


def be_child(seconds):
    if harness.given("--fork"):
        os.fork()
    os.write(1, ("%d\n" % os.getpid()).encode())
    # Of a chain the children count CPU time, so that they use it whatever else runs.
    burn(seconds, harness.number("first", 0), time.time if harness.given("--fork") else time.process_time)


def pool(seconds):
    workers = multiprocessing.get_context("fork").Pool(2)
    workers.map_async(functools.partial(burn, first=os.getpid()), [seconds] * 2, chunksize=1)
    return [process.pid for process in workers._pool], workers


def tree(seconds):
    line = '"$@" & wait'
    shell = subprocess.Popen(["sh", "-c", line, "sh"] + child(seconds) + ["--fork"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    return [int(shell.stdout.readline()) for _ in range(2)], shell


def other(seconds):
    line = "while kill -0 $PPID 2>/dev/null; do i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done; done"
    shells = [subprocess.Popen(["sh", "-c", line], stdin=subprocess.DEVNULL) for _ in range(1 if harness.given("--own") else 2)]
    return [shell.pid for shell in shells], shells


def chain(seconds):
    until = time.time() + seconds
    while time.time() < until:
        subprocess.check_call(child(0.3), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return [], None


def main():
    seconds = harness.number("seconds", 0) / 10.0
    how = {"pool": pool, "tree": tree, "other": other, "chain": chain}[sys.argv[sys.argv.index("--how") + 1]]
    own = harness.given("--own")
    pids, keep = how((seconds / 10 if own else seconds) or 3600)
    if own:
        threading.Thread(target=burn, args=(seconds, os.getpid()), name="own").start()
    if not seconds:
        harness.fact({"children": pids})
        harness.ready()
        harness.stay()
    time.sleep(0 if how is chain else seconds)
    if how is other:
        for shell in keep:
            shell.kill()
            shell.wait()
    elif keep is not None:
        os._exit(0)


if __name__ == "__main__":
    if harness.given("--child"):
        be_child(float(sys.argv[sys.argv.index("--child") + 1]))
    else:
        main()
