# cython: language_level=3
"""The same loop with the GIL and without it. Built by scripts/eval/verdicts/modules.py."""


cdef unsigned long spin(unsigned long n) noexcept nogil:
    cdef unsigned long x = 88172645463325252UL
    cdef unsigned long i
    for i in range(n):
        x ^= x << 13
        x ^= x >> 7
        x ^= x << 17
    return x


def keeping(unsigned long n):
    return spin(n)


def releasing(unsigned long n):
    cdef unsigned long x
    with nogil:
        x = spin(n)
    return x
