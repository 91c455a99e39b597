"""Prints its version and the address of its `_PyRuntime`, and waits."""
import sys

import harness

harness.fact({"version": sys.version.split()[0], "runtime": harness.runtime()})
harness.ready()
harness.stay()
