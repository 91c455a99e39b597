"""Writes an interpreter's own view of its line tables: python3.N make.py > 3.N.txt

One line per code object: name, first line, length of the bytecode, the table in hex, then `start:line` for every place where
the line changes, `-` where there is none. Runs on 3.7 and later.
"""
import dis
import os
import sys

# A function longer than 255 bytes and 255 lines, with jumps of more than 127 lines in both directions: each needs more than one entry.
LONG = (
    "def long(a):\n"
    + "".join("    a = a + %d\n" % i for i in range(130))
    + "\n" * 300
    + "    a = (\n"
    + "\n" * 140
    + "        a\n"
    + "\n" * 140
    + "        (a)\n"
    + "    )\n"
    + "    return " + "+".join(["a"] * 200) + "\n"
)


def lines(code):
    if hasattr(code, "co_lines"):
        for start, end, line in code.co_lines():
            if end > start:
                yield start, line
    else:
        # The line of an address before the first entry.
        yield 0, code.co_firstlineno
        yield from dis.findlinestarts(code)


def merged(code):
    last = ()
    found = {}
    for start, line in lines(code):
        found[start] = line
    for start in sorted(found):
        if found[start] != last:
            last = found[start]
            yield start, last


def walk(code):
    yield code
    for const in code.co_consts:
        if hasattr(const, "co_code"):
            yield from walk(const)


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(here, "odd.py")) as f:
        odd = f.read()
    for source in (odd, LONG):
        for code in walk(compile(source, "odd.py", "exec")):
            table = code.co_linetable if hasattr(code, "co_lines") else code.co_lnotab
            starts = " ".join("%d:%s" % (s, "-" if n is None else n) for s, n in merged(code))
            print(code.co_name.replace(" ", ""), code.co_firstlineno, len(code.co_code), table.hex(), starts)


sys.exit(main())
