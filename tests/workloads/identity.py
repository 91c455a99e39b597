"""Says its version and where its `_PyRuntime` is, and does nothing."""
import sys

import harness

harness.fact({"version": sys.version.split()[0], "runtime": harness.runtime()})
harness.ready()
harness.stay()
