"""Runs a command in a terminal of its own, COLUMNS wide, and prints everything that the terminal shows.

terminal.py COLUMNS TEXT KEYS COMMAND…: types KEYS when TEXT has appeared, and passes its own stdin on.
Ends with the command's exit code.
"""
import codecs
import fcntl
import os
import pty
import select
import struct
import sys
import termios

columns, word, keys = int(sys.argv[1]), sys.argv[2].encode(), codecs.decode(sys.argv[3], "unicode_escape").encode()
pid, terminal = pty.fork()
if pid == 0:
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    os.execvp(sys.argv[4], sys.argv[4:])
shown = b""
sources = [terminal, 0]
while True:
    ready = select.select(sources, [], [])[0]
    if 0 in ready:
        typed = os.read(0, 4096)
        os.write(terminal, typed)
        if not typed:
            sources.remove(0)
    if terminal not in ready:
        continue
    try:
        new = os.read(terminal, 4096)
    except OSError:  # the last process closed the terminal
        new = b""
    if not new:
        break
    shown += new
    os.write(1, new)
    if word and word in shown:
        word = b""
        os.write(terminal, keys)
status = os.waitpid(pid, 0)[1]
sys.exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))
