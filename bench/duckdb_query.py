"""One query by DuckDB (2 threads) on the data files of a published table, named lineitem.

usage: duckdb_query.py METADATA_LOCATION   (the query is read from stdin)

Prints the best of three warm runs, in milliseconds. The files are read as plain Parquet, which is
what DuckDB does fastest: no Iceberg metadata is read while the clock runs.
"""

import sys
import time

import duck
from pyiceberg.table import StaticTable

query = sys.stdin.read()
tasks = list(StaticTable.from_metadata(sys.argv[1]).scan().plan_files())
if any(task.delete_files for task in tasks):
    sys.exit("the table has deleted rows: plain Parquet would not be the same data")
files = [duck.plain_path(task.file.file_path) for task in tasks]
connection = duck.connect(threads=2)
connection.execute("SET parquet_metadata_cache = true")
names = ", ".join(f"'{name}'" for name in files)
connection.execute(f"CREATE VIEW lineitem AS SELECT * FROM read_parquet([{names}])")
connection.execute(query).fetchall()
best = float("inf")
for _ in range(3):
    begin = time.perf_counter()
    connection.execute(query).fetchall()
    best = min(best, time.perf_counter() - begin)
print(best * 1000)
