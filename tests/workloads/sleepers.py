"""Threads that wait in the kernel, but not for locks: for a timer, a poll, a socket without data.

`--threads N` (6) of them, a third of each kind; the timers and polls wake about 20 times a second.
"""
import select
import socket
import time

import harness

_pairs = []


def nap():
    while True:
        time.sleep(0.05)


def poll():
    ours, _ = pair = socket.socketpair()
    _pairs.append(pair)
    poller = select.poll()
    poller.register(ours, select.POLLIN)
    while True:
        poller.poll(50)


def listen():
    ours, _ = pair = socket.socketpair()
    _pairs.append(pair)
    ours.recv(1)


for n in range(harness.number("threads", 6)):
    target = (nap, poll, listen)[n % 3]
    harness.thread(target, name="%s-%d" % (target.__name__, n))
harness.ready()
harness.stay()
