"""Chains of tiny generators, resumed and suspended every few tens of nanoseconds: their frames are outside the thread's stack of frames,
and a suspended one has no caller.

Each may run two of the four on the next level and nothing else. The first line on stdout is the graph, as in call_heavy.py.
At the end: the number of finished chains.
"""
import harness

LEVELS, WIDTH = 6, 4


def name(level, column):
    return "g%d_%d" % (level, column % WIDTH)


def allowed(level, column):
    if level == LEVELS - 1:
        return []
    return [name(level + 1, column), name(level + 1, column + 1 + level % 3)]


TEMPLATE = """
def {me}(n):
    if n & 1:
        yield from {odd}(n >> 1)
    for x in {even}(n >> 1):
        yield x
"""
LEAF = """
def {me}(n):
    yield n
    yield 1
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
exec(compile(source, "generator_heavy_generated.py", "exec"))


def drive(index):
    s = index + 1
    while True:
        s = (s * 16381 + 12345) & 0xfffff
        n = s >> 5 & 1023
        for _ in g0_0(n):  # noqa: F821 (generated above)
            pass
        for _ in g0_1(n ^ 5):  # noqa: F821
            pass
        for _ in g0_2(n ^ 85):  # noqa: F821
            pass
        for _ in g0_3(n ^ 31):  # noqa: F821
            pass
        chains[index] += 4


THREADS = harness.number("threads", 1)
chains = [0] * THREADS
harness.fact({"graph": graph})
for n in range(THREADS):
    harness.thread(drive, n, name="driver-%d" % n)
harness.ready()
harness.stay(lambda: sum(chains))
