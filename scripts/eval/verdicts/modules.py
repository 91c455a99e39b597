"""A virtual environment with the packages that the labelled workloads need, and the two compiled
modules.
"""
import os
import subprocess

from common import CACHE, WORKLOADS, NotMeasured

PACKAGES = ["numpy", "pillow", "cython", "setuptools", "flask", "waitress", "requests", "fastapi", "uvicorn", "pandas"]
SOURCES = os.path.join(WORKLOADS, "labelled")
ASK = "import sysconfig; print(sysconfig.get_path('include')); print(sysconfig.get_path('platlib')); print(sysconfig.get_config_var('EXT_SUFFIX'))"


def run(*command):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise NotMeasured("%s: %s" % (" ".join(command), done.stdout.decode()[-500:]))
    return done.stdout.decode()


def prepared(interpreter):
    """The interpreter of the environment, which is made if it is missing."""
    folder = os.path.join(CACHE, "verdicts", interpreter["label"])
    python, done = os.path.join(folder, "bin", "python"), os.path.join(folder, "complete")
    if not (os.path.exists(done) and open(done).read().split() == PACKAGES):
        run(interpreter["path"], "-m", "venv", "--clear", folder)
        run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES)
        build(python, folder)
        with open(done, "w") as packages:
            packages.write(" ".join(PACKAGES))
    return dict(interpreter, path=python)


def build(python, folder):
    include, into, suffix = run(python, "-c", ASK).split("\n")[:3]
    generated = os.path.join(folder, "spin_cython.c")
    run(python, "-m", "cython", "-o", generated, os.path.join(SOURCES, "spin_cython.pyx"))
    for source, name in ((os.path.join(SOURCES, "spin_c.c"), "spin_c"), (generated, "spin_cython")):
        run(os.environ.get("CC", "cc"), "-O2", "-shared", "-fPIC", "-I", include, "-o", os.path.join(into, name + suffix), source)
