"""Calls of C that keep the GIL, or release it: `--what json|pickle|re|sorted|sha256|zlib`."""
import hashlib
import json
import pickle
import re
import zlib

import pair

ROWS = [{"id": n, "name": "row %d" % n, "tags": ["a", "b", str(n)], "value": n / 7} for n in range(1500)]
TEXT = "lorem ipsum 12-34 dolor sit amet " * 1200
BLOCK = bytes(range(256)) * 4096
PATTERN = re.compile(r"(\d+)-(\d+)\s+(\w+)?x")
DIGITS = [n * 7919 % 100003 for n in range(30000)]

UNITS = {
    "json": lambda _: json.dumps(ROWS),
    "pickle": lambda _: pickle.dumps(ROWS),
    "re": lambda _: PATTERN.findall(TEXT),
    "sorted": lambda _: sorted(DIGITS),
    "sha256": lambda _: hashlib.sha256(BLOCK).digest(),
    "zlib": lambda _: zlib.crc32(zlib.compress(BLOCK, 1)),
}

pair.run(UNITS[pair.flag("what", "json")])
