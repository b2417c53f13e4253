"""What pyiceberg makes of a table's partition specs and sort order, a line each:

  the default spec, the default sort order, how many specs there are,
  files of a plan with the filter / files of one without, rows that the filter finds.

usage: layout.py METADATA_LOCATION FILTER
"""

import sys

from pyiceberg.table import StaticTable

location, row_filter = sys.argv[1:]
table = StaticTable.from_metadata(location)
schema = table.schema()


def column(source_id):
    return schema.find_column_name(source_id)


print(", ".join(f"{field.transform}({column(field.source_id)})" for field in table.spec().fields))
print(
    ", ".join(
        f"{column(field.source_id)} {field.direction.value} {field.null_order.value}"
        for field in table.sort_order().fields
    )
)
print(len(table.specs()))
some = table.scan(row_filter=row_filter)
print(len(list(some.plan_files())), "/", len(list(table.scan().plan_files())))
print(len(some.to_arrow()))
