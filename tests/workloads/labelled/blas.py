"""Products of matrices by the BLAS that NumPy brings, which has threads of its own; processes share the cores out among them, as joblib's do."""
import os

import pair

if pair.PROCESSES:
    os.environ["OPENBLAS_NUM_THREADS"] = str(max(1, os.cpu_count() // pair.WORKERS))
import numpy


def setup(index):
    return numpy.random.default_rng(index).random((500, 500))


def product(matrix):
    return (matrix @ matrix)[0, 0]


pair.run(product, setup)
