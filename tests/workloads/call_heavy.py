"""The worst program for a reader that does not stop it: ten levels of tiny functions, a call every few tens of nanoseconds.

Each function may call two of the four on the next level and nothing else, so a stack that was put together from two moments
shows a caller with a callee that it cannot call, in half of the cases even where the levels are right. The bits of one number, which
the driver computes by cheap arithmetic, choose the callees and the depth.
The first line on stdout is the graph, {"graph": {caller: [callees]}}; `--graph` prints only that. `--threads N` (1) run `drive`.
At the end: the number of calls of `drive`'s own.
"""
import harness

LEVELS, WIDTH = 10, 4


def name(level, column):
    return "f%d_%d" % (level, column % WIDTH)


def allowed(level, column):
    """The two callees of a function. The step differs by level, so that no shift of a whole stack is possible either."""
    if level == LEVELS - 1:
        return []
    return [name(level + 1, column), name(level + 1, column + 1 + level % 3)]


TEMPLATE = """
def {me}(n):
    if n & 1:
        return {odd}(n >> 1)
    if n:
        return {even}(n >> 1)
"""
LEAF = """
def {me}(n):
    return n
"""
graph = {"drive": [name(0, c) for c in range(WIDTH)]}
source = ""
for level in range(LEVELS):
    for column in range(WIDTH):
        me, callees = name(level, column), allowed(level, column)
        graph[me] = callees
        if callees:
            source += TEMPLATE.format(me=me, odd=callees[0], even=callees[1])
        else:
            source += LEAF.format(me=me)
exec(compile(source, "call_heavy_generated.py", "exec"))


def drive(index):
    s = index + 1
    mine = 0
    while True:
        s = (s * 16381 + 12345) & 0xfffff
        n = (s >> 5 & 1023) >> (s >> 15 & 3)
        f0_0(n)  # noqa: F821 (generated above)
        f0_1(n ^ 5)  # noqa: F821
        f0_2(n ^ 85)  # noqa: F821
        f0_3(n ^ 31)  # noqa: F821
        mine += 4
        calls[index] = mine


THREADS = harness.number("threads", 1)
calls = [0] * THREADS
harness.fact({"graph": graph})
if not harness.given("--graph"):
    for n in range(THREADS):
        harness.thread(drive, n, name="driver-%d" % n)
    harness.ready()
    harness.stay(lambda: sum(calls))
