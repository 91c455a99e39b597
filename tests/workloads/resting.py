"""Two threads that sleep in read(2), the main one at module level: the interpreter's data do not change.

Prints the address of its `_PyRuntime` and the first lines of the two code objects.
"""
import os
import sys

import harness


def sleeper():
    os.read(fd, 1)


fd, other = os.pipe()
harness.thread(sleeper, name="w\u00f6rker")
lines = {code.co_name: code.co_firstlineno for code in (sleeper.__code__, sys._getframe().f_code)}
harness.fact({"runtime": harness.runtime(), "lines": lines})
harness.ready()
while os.read(0, 4096):
    pass
os._exit(0)
