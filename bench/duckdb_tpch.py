"""TPC-H's queries by DuckDB on the data files of published tables.

usage: duckdb_tpch.py THREADS MEMORY_MB TIMES

stdin:  a line per table:  table, name, metadata location, by tabs
        a line per query:  query, number, text, by tabs
stdout: a line per query: number, rows, sum of all numbers in them, milliseconds of each of TIMES runs (by commas)

The first run of each query warms up and isn't counted. The files are read as plain Parquet, which is what DuckDB does
fastest: no Iceberg metadata is read while the clock runs.
"""

import decimal
import sys
import time

import duck
from pyiceberg.table import StaticTable

threads, memory, times = (int(argument) for argument in sys.argv[1:])
connection = duck.connect(threads=threads)
connection.execute(f"SET memory_limit = '{memory}MiB'")
connection.execute("SET parquet_metadata_cache = true")


def create_view(name, location):
    tasks = list(StaticTable.from_metadata(location).scan().plan_files())
    if any(task.delete_files for task in tasks):
        sys.exit(f"{name} has deleted rows: plain Parquet would not be the same data")
    files = ", ".join(f"'{duck.plain_path(task.file.file_path)}'" for task in tasks)
    connection.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet([{files}])")


def is_number(value):
    return isinstance(value, (int, float, decimal.Decimal)) and not isinstance(value, bool)


def run(number, text):
    rows = connection.execute(text).fetchall()
    total = sum(float(value) for row in rows for value in row if is_number(value))
    taken = []
    for _ in range(times):
        begin = time.perf_counter()
        connection.execute(text).fetchall()
        taken.append((time.perf_counter() - begin) * 1000)
    print(number, len(rows), repr(total), ",".join(map(repr, taken)), sep="\t")


for line in sys.stdin:
    what, name, text = line.rstrip("\n").split("\t")
    create_view(name, text) if what == "table" else run(name, text)
