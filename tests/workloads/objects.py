"""Prints the address of its `_PyRuntime`, its threads and code objects, and some other objects. Not for 2.7 and 3.6."""
import dis
import threading

import harness


class Late(threading.Thread):
    """Has attributes of its own before the base class's."""

    def __init__(self, **kwargs):
        for i in range(40):  # more than instances of a class share keys for
            setattr(self, "own_%d" % i, i)
        super().__init__(**kwargs)


class Slotted(threading.Thread):
    __slots__ = ("more",)


class Marked(str):
    """A subclass of str keeps its characters elsewhere."""


def outer(a):
    def inner(b):
        return len(
            str(b)
        ) + a
    return inner


class Held:
    def method(self, x):
        """Odd lines, and calls that specialise."""
        y = [
            abs(x),
            x.bit_length(),
            self,
        ]
        return isinstance(y, list) and max(
            y[0],
            *y[1:2]
        )


done = threading.Event()
inside = threading.Barrier(7)


def wait():
    inside.wait()
    done.wait()


threads = [
    threading.Thread(target=wait, name="worker-0"),
    threading.Thread(target=wait, name="Größe-Ω-\U0001f40d"),
    threading.Thread(target=wait, name="x" * 300),
    Late(target=wait, name="late"),
    Slotted(target=wait, name="slotted"),
    threading.Thread(target=wait),
]
vars(threads[0])  # creates a dict where there was none
threads[4].name = "renamed"
for thread in threads:
    thread.daemon = True
    thread.start()
inside.wait()


def instructions(code):
    """Offset, line, and whether it is a call, of each instruction as it stands in memory now."""
    line_of = {}
    if hasattr(code, "co_lines"):
        for start, end, line in code.co_lines():
            line_of.update((at, line) for at in range(start, end, 2))
    else:
        changes = dict(dis.findlinestarts(code))
        line = code.co_firstlineno
        for at in range(0, len(code.co_code), 2):
            line = changes.get(at, line)
            line_of[at] = line
    found = []
    for one in dis.get_instructions(code):
        # In 3.11 a call is PRECALL and CALL, and the C function runs in either. CALL_INTRINSIC_* are not calls of callables.
        call = one.opname.startswith(("CALL", "PRECALL")) and "INTRINSIC" not in one.opname
        found.append([one.offset, line_of[one.offset], call])
    return found


held = Held()
for i in range(1000):
    held.method(i)
codes = [(f.__code__, getattr(f.__code__, "co_qualname", f.__code__.co_name)) for f in (outer(1), Held.method, threading.Thread.run)]
strings = ["ascii", "größe", "Ω", "\U0001f40d", "", "\ud800!", Marked("mine"), Marked("Ωmine"), "y" * 100]
ints = [0, 1, 2**30 - 1, 2**30, 140213423212345, 2**64 - 1, 2**64, -1]
names = [["bytes", b"abc", "abc"], ["bytes", b"", ""], ["bytes", b"abcdefgh", "abcd"], ["dict", {}, None]]
objects = [["Marked" if type(s) is Marked else "str", s, s] for s in strings]
objects += [["int", i, i if 0 <= i < 2**64 else None] for i in ints] + names


def seen(value):
    """As gilprof shows a string of more than 40 characters, and lone surrogates."""
    if not isinstance(value, str):
        return value
    value = "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in value)
    return value[:40] + "\u2026" if len(value) > 40 else value


harness.fact({"runtime": harness.runtime()})
harness.fact({"names": [[t.ident, t.name[:128] + ("\u2026" if len(t.name) > 128 else "")] for t in threading.enumerate()]})
harness.fact({"codes": [{"at": id(code), "name": name, "file": code.co_filename, "first_line": code.co_firstlineno,
                         "instructions": instructions(code)} for code, name in codes]})
harness.fact({"objects": [[id(o), kind, seen(value)] for kind, o, value in objects]})
harness.ready()
harness.stay()
