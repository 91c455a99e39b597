"""Queries of in-memory SQLite databases, one a worker: SQLite counts its memory under a mutex of the process."""
import sqlite3

import pair

COUNT = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 20000) SELECT count(*) FROM c"

pair.run(lambda database: database.execute(COUNT).fetchone(), lambda index: sqlite3.connect(":memory:", check_same_thread=False))
