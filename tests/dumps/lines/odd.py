"""Constructs whose line tables are odd. Never run; compiled by make.py."""
import functools


@functools.lru_cache(
    maxsize=None,
)
@functools.wraps(print)
def decorated(
    a,
    b=1,
):
    return a + b


def calls(f):
    f(
        1,
        f(2),
        key=f(
            3
        ),
    )
    return (f
            (4)
            .g
            (5)
            )


def backwards(items):
    for item in (
        items
    ):
        if item:
            continue
        while item: item -= 1; item += 1
    else:
        items = None
    return [x
            for x in items
            if (x
                and
                not x)]


def handlers(f):
    try:
        try:
            f()
        except (KeyError,
                ValueError) as e:
            raise e from \
                None
        finally:
            f(1)
    except Exception:
        pass
    with f() as a, \
            f() as b:
        return a, b


async def awaits(f):
    async for x in f():
        async with x as y:
            await y
    return [await z
            async for z in f()]


def generates():
    x = yield
    yield from (
        y
        for y in x
    )


class Held:
    """Doc."""

    @property
    def name(self): return {
        "a": 1,


        "b": lambda: (
            2),
    }

    def far(self):
        x = f"""{self
        .name}
        """



        assert x, (
            "no"
        )
        return {k: v for k, v in x} if x else {
            y for y in x}
