"""Counts and sums of published tables, as an outside reader sees them.

usage: sums.py duckdb|pyiceberg-file|pyiceberg-catalog SCHEMA

stdin:  a line per table: name, metadata location, numeric columns (comma-separated), by tabs
stdout: a line per table: name, row count, a sum per column, by tabs
env:    CATALOG_URI, PGDATABASE (the catalog's name), for pyiceberg-catalog
"""

import decimal
import os
import sys

decimal.getcontext().prec = 60


def by_duckdb(location, columns):
    sums = ", ".join(f"sum({column})" for column in columns)
    path = duck.plain_path(location)
    return CONNECTION.execute(f"SELECT count(*), {sums} FROM iceberg_scan('{path}')").fetchone()


def by_pyiceberg(table, columns):
    count = 0
    sums = [None] * len(columns)
    for batch in table.scan(selected_fields=tuple(columns)).to_arrow_batch_reader():
        count += batch.num_rows
        for i, column in enumerate(columns):
            value = pyarrow.compute.sum(batch.column(column)).as_py()
            if value is not None:
                sums[i] = value if sums[i] is None else sums[i] + value
    return [count, *sums]


reader, schema = sys.argv[1:]
if reader == "duckdb":
    import duck

    CONNECTION = duck.connect()
else:
    import pyarrow.compute
    from pyiceberg.catalog.sql import SqlCatalog
    from pyiceberg.table import StaticTable

    if reader == "pyiceberg-catalog":
        CATALOG = SqlCatalog(
            os.environ["PGDATABASE"],
            uri=os.environ["CATALOG_URI"],
            init_catalog_tables="false",
        )

for line in sys.stdin:
    name, location, columns = line.rstrip("\n").split("\t")
    columns = columns.split(",")
    if reader == "duckdb":
        row = by_duckdb(location, columns)
    elif reader == "pyiceberg-file":
        row = by_pyiceberg(StaticTable.from_metadata(location), columns)
    else:
        row = by_pyiceberg(CATALOG.load_table((schema, name)), columns)
    print(name, *("null" if value is None else value for value in row), sep="\t")
