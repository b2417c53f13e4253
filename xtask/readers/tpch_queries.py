"""The 22 queries of TPC-H as DuckDB's tpch extension has them: number, tab, text, a line each."""

import pathlib
import sysconfig

import duckdb

packages = pathlib.Path(sysconfig.get_paths()["purelib"])
found = sorted(packages.glob("duckdb_extension_tpch/extensions/*/tpch.duckdb_extension"))
if not found:
    raise SystemExit("duckdb extension tpch is not installed")
connection = duckdb.connect(
    config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
)
connection.execute(f"LOAD '{found[-1]}'")
queries = connection.execute("SELECT query_nr, query FROM tpch_queries() ORDER BY query_nr")
for number, query in queries.fetchall():
    print(number, " ".join(query.split()).rstrip("; "), sep="\t")
