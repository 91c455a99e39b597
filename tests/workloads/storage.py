"""System calls that release the GIL: `--sqlite`, `--sockets` or `--files`, two threads of each, beside `--hogs N` (0) that compute.

At the end: the number of operations.
"""
import os
import socket
import sqlite3
import tempfile

import harness

done = [0]
BLOCK = os.urandom(1 << 18)


def hog():
    while True:
        x = 1
        for i in range(20000):
            x = (x * 3 + i) & 65535


def query():
    """Every step of a query releases the GIL, for microseconds."""
    db = sqlite3.connect(":memory:")
    db.execute("create table t (a integer, b text)")
    db.executemany("insert into t values (?, ?)", [(i, "row %d" % i) for i in range(20000)])
    while True:
        db.execute("select count(*), sum(a) from t where b like '%7%' and a % 3 = 1").fetchall()
        done[0] += 1


def talk(sock):
    while True:
        sock.sendall(b"x" * 512)
        left = 512
        while left:
            left -= len(sock.recv(left))
        done[0] += 1


def write():
    with tempfile.TemporaryFile() as file:
        while True:
            file.seek(0)
            file.write(BLOCK)
            file.flush()
            file.seek(0)
            file.read()
            done[0] += 1


if harness.given("--sqlite"):
    harness.thread(query, name="query-0")
    harness.thread(query, name="query-1")
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
