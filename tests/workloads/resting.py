"""Two threads that sleep in read(2), the main one at module level: the interpreter's own data stand still.

Says where its `_PyRuntime` is and on which lines the two code objects begin.
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
