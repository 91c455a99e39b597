"""Threads blocked at places with known stacks, one for each kind of frame in CPython's memory.

Prints {"threads": [{"tid", "name", "stack": [[function, file, line], ...]}]}, root first, as `sys._current_frames()` has it, then `ready`.
The function is `co_qualname` where code objects have one (3.11), else `co_name`; the line is 0 where the frame has none.
Nothing changes after that: every thread waits for a lock that is never released, the main thread for the end of stdin.
"""
import _thread
import asyncio
import functools
import operator
import sys
import threading
import time

import harness

gate = threading.Lock()
gate.acquire()


def stand(*_ignored, **_also):
    gate.acquire()


def nested():
    def middle():
        def inner():
            stand()
        inner()
    middle()


class Thing:
    def method(self):
        return self.other(1, key=2)

    def other(self, *args, **kwargs):
        return self.static()

    @staticmethod
    def static():
        return Thing.made()

    @classmethod
    def made(cls):
        return cls().prop

    @property
    def prop(self):
        return self.missing

    def __getattr__(self, name):
        return self + 1

    def __add__(self, other):
        return stand()


def generator():
    def lower():
        yield 1
        stand()

    def upper():
        yield from lower()

    for _ in upper():
        pass


def closure():
    captured = [stand]

    def use():
        captured[0]()
    use()


def lambdas():
    (lambda f: (lambda g: g())(f))(lambda: stand())


def comprehensions():
    [{k: v for k, v in [(1, {stand() for _ in range(2)})]} for _ in (1, 2)]


def generator_expression():
    sum(stand() for _ in range(3))


def twice(function):
    @functools.wraps(function)
    def wrapper(*args):
        first = function(*args)
        return first, function(*args)
    return wrapper


@twice
@twice
def decorated(number):
    return number, stand()


def multi_line():
    return max(
        1,
        operator.add(
            2,
            len([
                3,
                gate.acquire(),
            ]),
        ),
        4,
    )


def multi_line_method_chain():
    return (
        "abc"
        .upper()
        .join([str(
            stand
            (
                1,
                *[2, 3],
                **{"four": 5}
            )
        )])
    )


def class_body():
    class Outer:
        x = 1

        class Inner:
            y = stand()


def called_back_from_c():
    sorted([3, 1, 2], key=lambda x: list(map(stand, [x])))


def in_handlers():
    try:
        try:
            raise ValueError
        except ValueError:
            with Managed():
                raise KeyError
    finally:
        pass


class Managed:
    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        stand()


def recursion(depth=400):
    """Deeper than one chunk of the thread's own stack of frames."""
    if depth:
        return recursion(
            depth - 1)
    return stand()


def наивная_функция():
    def 蛇():
        stand()
    蛇()


def executed():
    """Code whose file does not exist, with steps between lines that do not fit in one byte, forth and back."""
    source = "def far():\n" + "\n" * 700 + "    before()\n" + "\n" * 300 + "    return max(\n" + "\n" * 200 + "        stand(),\n        1)\nfar()\n"
    exec(compile(source, "<made up: файл>", "exec"), {"stand": stand, "before": lambda: None})


def long_function():
    """So long that jumps and line tables need their extended forms."""
    body = "".join("        x = x + %d if x else [x for x in (1, 2)][0]\n" % n for n in range(900))
    names = {"stand": stand}
    exec(compile("def long(x):\n    while True:\n" + body + "        stand()\n" + body, "long.py", "exec"), names)
    names["long"](1)


def coroutines():
    class Awaitable:
        def __await__(self):
            yield from asyncio.sleep(0).__await__()
            stand()

    async def numbers():
        yield 1
        await Awaitable()

    async def middle():
        async for _ in numbers():
            await asyncio.sleep(0)

    async def top():
        await asyncio.gather(middle(), asyncio.sleep(0))

    loop = asyncio.new_event_loop()
    loop.run_until_complete(top())


def direct():
    """Leaves that are not `stand`: the innermost frame is itself the odd one."""
    (lambda: gate.acquire())()


def direct_generator():
    next(gate.acquire() for _ in range(1))


def direct_comprehension():
    [
        gate.acquire()
        for _ in range(1)
    ]


def direct_class_body():
    class Body:
        held = gate.acquire(
            True,
        )


PLACES = [
    nested, Thing().method, generator, closure, lambdas, comprehensions, generator_expression, decorated, multi_line,
    multi_line_method_chain, class_body, called_back_from_c, in_handlers, recursion, наивная_функция, executed, long_function, coroutines,
    direct, direct_generator, direct_comprehension, direct_class_body,
]


def stack(frame):
    frames = []
    while frame is not None:
        code = frame.f_code
        frames.append([getattr(code, "co_qualname", code.co_name), code.co_filename, frame.f_lineno or 0])
        frame = frame.f_back
    return frames[::-1]


def positions(ours):
    """Where each thread's innermost frame is, to the instruction."""
    return {ident: (id(frame), frame.f_lasti) for ident, frame in sys._current_frames().items() if ident in ours}


def report(ours, tids):
    """Runs in a thread of its own, which then ends, so that the stack of the main thread does not change either.

    A thread that reported that it is at work may not have reached the lock yet. All have reached it when no position changes by one
    instruction between several checks, with pauses in which the GIL is free and no thread needs it.
    """
    before, same = None, 0
    while same < 10:
        time.sleep(0.01)
        now = positions(ours)
        same = same + 1 if now == before else 0
        before = now
    frames = sys._current_frames()
    names = {t.ident: t.name for t in threading.enumerate()}
    harness.fact({"threads": [{"tid": tids[i], "name": names.get(i), "stack": stack(frames[i])} for i in ours]})
    harness.ready()


def main():
    tids = {}

    def enter(place, *args):
        tids[threading.get_ident()] = harness.thread_id()
        harness.at_work()
        place(*args)

    harness.expect(len(PLACES) + 1)
    for place in PLACES:
        args = (1,) if place is decorated else ()
        threading.Thread(target=enter, args=(place,) + args, name=place.__name__, daemon=True).start()
    _thread.start_new_thread(enter, (nested,))
    harness.wait_for_all()
    tids[threading.get_ident()] = harness.thread_id()
    _thread.start_new_thread(report, (list(tids), tids))
    harness.stay()


main()
