"""The same array: NumPy's own loops, which release the GIL (`--what numpy`), or a loop in Python over its elements (`--what python`).

Results go into existing arrays: with new ones for each, half of the time went to page faults, whose share differs between one process with two
threads and two processes.
"""
import numpy

import pair


def released(state):
    values, sines, roots = state
    numpy.sin(values, out=sines)
    numpy.add(values, 1.0, out=roots)
    numpy.sqrt(roots, out=roots)
    numpy.multiply(sines, roots, out=sines)
    sines.sort()


def element_by_element(state):
    values = state[0]
    total = 0.0
    for value in values[:4000]:
        total += value * 0.5 if value > 0.5 else value
    return total


pair.run(released if pair.flag("what", "numpy") == "numpy" else element_by_element,
         lambda index: (numpy.random.default_rng(index).random(200000), numpy.empty(200000), numpy.empty(200000)))
