"""DuckDB with the Iceberg extension that was installed beside it, and no way to fetch another."""

import pathlib
import sysconfig

import duckdb

import store


def connect(threads=2):
    connection = duckdb.connect(
        config={
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "threads": str(threads),
        }
    )
    packages = pathlib.Path(sysconfig.get_paths()["purelib"])
    for name in ("icu", "avro", "httpfs", "iceberg"):
        found = sorted(
            packages.glob(f"duckdb_extension_{name}/extensions/*/{name}.duckdb_extension")
        )
        if not found:
            raise SystemExit(f"duckdb extension {name} is not installed")
        connection.execute(f"LOAD '{found[-1]}'")
    store.connect(connection)
    return connection


def plain_path(location):
    """A local location without its scheme."""
    return location[len("file://"):] if location.startswith("file://") else location
