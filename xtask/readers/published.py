"""What pyiceberg finds in published metadata.

usage: published.py

stdin:  a metadata location a line, and after a tab whether its files are wanted: yes or no
stdout: for each one, separated by tabs,
        state, location, number of rows, sums of id, n and the length of v;
        file, location, path of a file that the metadata refer to, for all of their snapshots
"""

import sys

import pyarrow.compute
from pyiceberg.table import StaticTable

import store


def files(table):
    metadata = table.metadata
    found = {entry.metadata_file for entry in metadata.metadata_log}
    for snapshot in metadata.snapshots:
        found.add(snapshot.manifest_list)
        for manifest in snapshot.manifests(table.io):
            found.add(manifest.manifest_path)
            for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True):
                found.add(entry.data_file.file_path)
    return sorted(found)


for line in sys.stdin:
    location, wanted = line.rstrip("\n").split("\t")
    table = StaticTable.from_metadata(location, store.properties())
    rows = table.scan().to_arrow()
    lengths = pyarrow.compute.utf8_length(rows["v"])
    sums = [pyarrow.compute.sum(column).as_py() or 0 for column in (rows["id"], rows["n"], lengths)]
    print("state", location, rows.num_rows, *sums, sep="\t")
    if wanted == "yes":
        for path in [location, *files(table)]:
            print("file", location, path, sep="\t")
