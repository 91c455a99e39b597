"""Database calls (`--what sqlite`: a file on disk, a commit each time) or files (`--what files`: written, synced and read back)."""
import os
import shutil
import sqlite3
import tempfile

import pair

FOLDER = tempfile.mkdtemp(prefix="gilprof-")
BLOCK = os.urandom(1 << 18)


def database(index):
    path = os.path.join(FOLDER, "%d.db" % index)
    db = sqlite3.connect(path, check_same_thread=False)
    db.execute("create table t (a integer, b text)")
    return db


def insert(db):
    with db:
        db.executemany("insert into t values (?, ?)", [(n, "row %d" % n) for n in range(20)])
    db.execute("select count(*) from t where a % 3 = 1").fetchone()


def opened(index):
    return tempfile.TemporaryFile(dir=FOLDER)


def rewrite(file):
    file.seek(0)
    file.write(BLOCK)
    file.flush()
    os.fdatasync(file.fileno())
    file.seek(0)
    file.read()


pair.run(*((insert, database) if pair.flag("what", "sqlite") == "sqlite" else (rewrite, opened)), at_end=lambda: shutil.rmtree(FOLDER, ignore_errors=True))
