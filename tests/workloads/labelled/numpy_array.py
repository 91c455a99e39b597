"""The same array: NumPy's own loops, which release the GIL (`--what numpy`), or a loop in Python over its elements (`--what python`)."""
import numpy

import pair


def released(values):
    numpy.sort(numpy.sin(values) * numpy.sqrt(values + 1.0))


def element_by_element(values):
    total = 0.0
    for value in values[:4000]:
        total += value * 0.5 if value > 0.5 else value
    return total


pair.run(released if pair.flag("what", "numpy") == "numpy" else element_by_element,
         lambda index: numpy.random.default_rng(index).random(200000))
