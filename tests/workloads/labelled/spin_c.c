/* The same loop with the GIL and without it. Built by scripts/eval/verdicts/modules.py. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

static unsigned long spin(unsigned long n)
{
    unsigned long x = 88172645463325252UL;
    for (unsigned long i = 0; i < n; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    return x;
}

static PyObject *keeping(PyObject *self, PyObject *n)
{
    unsigned long count = PyLong_AsUnsignedLong(n);
    if (PyErr_Occurred())
        return NULL;
    return PyLong_FromUnsignedLong(spin(count));
}

static PyObject *releasing(PyObject *self, PyObject *n)
{
    unsigned long count = PyLong_AsUnsignedLong(n), x;
    if (PyErr_Occurred())
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    x = spin(count);
    Py_END_ALLOW_THREADS
    return PyLong_FromUnsignedLong(x);
}

static PyMethodDef methods[] = {{"keeping", keeping, METH_O, NULL}, {"releasing", releasing, METH_O, NULL}, {NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "spin_c", NULL, -1, methods};

PyMODINIT_FUNC PyInit_spin_c(void)
{
    return PyModule_Create(&module);
}
