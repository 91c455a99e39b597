"""Workers that log by one handler into a pipe, whose reader takes 2 ms a line."""
import fcntl
import logging
import os
import time

import pair

F_SETPIPE_SZ = 1031


def read_slowly():
    os.close(here)
    for _ in open(there):
        time.sleep(0.002)


def unit(index):
    logging.info("worker %d: %s", index, "x" * 200)


def setup(index):
    return index


there, here = os.pipe()
fcntl.fcntl(here, F_SETPIPE_SZ, 4096)
pair.forked(read_slowly)
logging.basicConfig(stream=open(here, "w"), level=logging.INFO)
pair.run(unit, setup)
