"""All rows of a published table, compared with Postgres' value by value.

usage: rows.py duckdb|pyiceberg-file|pyiceberg-catalog SCHEMA TABLE METADATA_LOCATION
env:   PG…, CATALOG_URI, what store.py takes

The table's first column is a unique key. Exits 1 and says what differs.
"""

import datetime
import os
import sys
import uuid

import psycopg2

import store

reader, schema, name, location = sys.argv[1:]


def plain(value):
    """One form for what the readers give as different Python types."""
    if isinstance(value, (memoryview, bytearray)):
        return bytes(value)
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        return value.astimezone(datetime.timezone.utc)
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return value


def by_duckdb():
    import duck

    connection = duck.connect()
    connection.execute("SET TimeZone = 'UTC'")
    result = connection.execute(f"SELECT * FROM iceberg_scan('{duck.plain_path(location)}')")
    columns = [column[0] for column in result.description]
    return columns, result.fetchall()


def by_pyiceberg():
    from pyiceberg.catalog.sql import SqlCatalog
    from pyiceberg.table import StaticTable

    if reader == "pyiceberg-file":
        table = StaticTable.from_metadata(location, store.properties())
    else:
        catalog = SqlCatalog(
            os.environ["PGDATABASE"],
            uri=os.environ["CATALOG_URI"],
            init_catalog_tables="false",
            **store.properties(),
        )
        table = catalog.load_table((schema, name))
    data = table.scan().to_arrow()
    columns = data.column_names
    return columns, [tuple(row[c] for c in columns) for row in data.to_pylist()]


def by_postgres():
    connection = psycopg2.connect("")
    cursor = connection.cursor()
    cursor.execute("SET TimeZone = 'UTC'")
    cursor.execute(f"SELECT * FROM {schema}.{name}")
    columns = [column[0] for column in cursor.description]
    return columns, cursor.fetchall()


def ordered(rows):
    return sorted(([plain(value) for value in row] for row in rows), key=lambda row: row[0])


expected_columns, expected = by_postgres()
columns, found = by_duckdb() if reader == "duckdb" else by_pyiceberg()
if columns != expected_columns:
    sys.exit(f"columns {columns}, Postgres has {expected_columns}")
expected, found = ordered(expected), ordered(found)
if len(expected) != len(found):
    sys.exit(f"{len(found)} rows, Postgres has {len(expected)}")
for one, other in zip(expected, found):
    for column, a, b in zip(columns, one, other):
        # char(n) is stored without its padding by some writers, with it by others.
        if isinstance(a, str) and isinstance(b, str) and a.rstrip(" ") == b.rstrip(" "):
            continue
        if isinstance(a, str) and isinstance(b, bytes) and len(b) == 16:
            b = str(uuid.UUID(bytes=b))
        if a == b or (isinstance(a, float) and a != a and b != b):
            continue
        sys.exit(f"row {one[0]!r}, column {column}: {b!r}, Postgres has {a!r}")
print(f"{len(found)} rows agree")
