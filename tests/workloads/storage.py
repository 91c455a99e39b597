"""System calls that release the GIL: `--sqlite`, `--sockets` or `--files`, two threads of each, and `--hogs N` (0) that compute.

At the end: the number of operations.
"""
import os
import socket
import sqlite3
import tempfile

import harness

done = [0]
BLOCK = os.urandom(1 << 22)
MESSAGE = b"x" * (1 << 16)


def compute(rounds):
    x = 1
    for i in range(rounds):
        x = (x * 3 + i) & 65535


def hog():
    while True:
        compute(20000)


def table():
    """Made before anybody computes: each row's insertion releases the GIL too, and would wait for it for a whole switch interval."""
    db = sqlite3.connect(":memory:", check_same_thread=False)
    db.execute("create table t (a integer, b text)")
    db.executemany("insert into t values (?, ?)", [(i, "row %d" % i) for i in range(100000)])
    return db


def query(db):
    """The one step of this query releases the GIL for some ten milliseconds."""
    while True:
        db.execute("select count(*), sum(a) from t where b like '%7%' and a % 3 = 1").fetchall()
        done[0] += 1


def talk(sock):
    while True:
        sock.sendall(MESSAGE)
        left = len(MESSAGE)
        while left:
            left -= len(sock.recv(left))
        compute(5000)
        done[0] += 1


def write():
    # In memory where possible: the speed of a disk varies.
    with tempfile.TemporaryFile(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as file:
        while True:
            file.seek(0)
            file.write(BLOCK)
            file.flush()
            file.seek(0)
            file.read()
            done[0] += 1


if harness.given("--sqlite"):
    for n, db in enumerate([table(), table()]):
        harness.thread(query, db, name="query-%d" % n)
elif harness.given("--sockets"):
    ours, theirs = socket.socketpair()
    harness.thread(talk, ours, name="talk-0")
    harness.thread(talk, theirs, name="talk-1")
else:
    harness.thread(write, name="write-0")
    harness.thread(write, name="write-1")
for n in range(harness.number("hogs", 0)):
    harness.thread(hog, name="hog-%d" % n)
harness.ready()
harness.stay(lambda: done[0])
