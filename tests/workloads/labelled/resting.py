"""Threads that only sleep."""
import time

import pair

pair.run(lambda _: time.sleep(0.05))
