"""Threads with every kind of name that a reader may find. Prints the name of each thread (kernel id) as JSON.

`null` stands for a thread that the threading module does not know. Not for 2.7, whose names are bytes.
"""
import _thread
import threading

import harness

NAMES = [
    "plain",
    "a name much longer than the fifteen bytes that the kernel keeps for a thread, " + "x" * 200,
    "naïve café",  # Latin-1: one byte a character, not ASCII
    "поток-ж",  # two bytes a character
    "nit-🐍-snake",  # four bytes a character
    "with spaces; semi;colons\tand \"quotes\" <&>",
    "",
]
said = {}
forever = threading.Lock()
forever.acquire()


def stand(name):
    if name is not None:
        name = threading.current_thread().name
    said[str(harness.thread_id())] = name
    harness.at_work()
    forever.acquire()


harness.expect(len(NAMES) + 2)
for n in NAMES:
    t = threading.Thread(target=stand, args=(n,))
    t.daemon = True
    t.name = n  # in the constructor, an empty name would mean a default one
    t.start()
t = threading.Thread(target=stand, args=("x",), name="before")
t.daemon = True
t.start()
_thread.start_new_thread(stand, (None,))
harness.wait_for_all()
t.name = "renamed later"
for tid, name in said.items():
    if name == "before":
        said[tid] = "renamed later"
said[str(harness.thread_id())] = threading.current_thread().name
harness.fact({"names": said})
harness.ready()
harness.stay()
