//! Partitioned and sorted tables as outside readers see them: all rows, the specs and orders that were declared, and
//! fewer files where a filter is about the partition.

use super::readers::read_by_all;
use super::{Run, Tally};
use crate::Result;
use crate::cluster::Cluster;

/// Rows of either table, made alike: loaded, deleted, changed, flushed, hot, and more after another partitioning.
const CHANGES: &[&str] = &[
    "INSERT INTO {t} SELECT g, CASE g % 5 WHEN 0 THEN NULL ELSE 'region ' || g % 5 END,
         timestamptz '2024-02-28 20:00+00' + g * interval '1 minute', (g - 2000) / 10.0
       FROM generate_series(1, 4000) g",
    "DELETE FROM {t} WHERE id % 7 = 0",
    "INSERT INTO {t} SELECT g, 'region 1', '1969-12-31 23:59+00', NULL FROM generate_series(4001, 4100) g",
    "FLUSH",
    "UPDATE {t} SET price = price + 1, region = 'region 3' WHERE id % 11 = 0",
    "FLUSH",
    "PUBLISH",
    "DELETE FROM {t} WHERE id BETWEEN 1000 AND 1100",
    "ALTER TABLE {t} RENAME region TO area",
    "REPARTITION",
    "INSERT INTO {t} SELECT g, 'region 2', timestamptz '2024-03-10 00:00+00' + g * interval '1 hour', g
       FROM generate_series(5001, 5200) g",
    "DELETE FROM {t} WHERE id > 5190",
    "INSERT INTO {t} VALUES (9001, 'region 1', '2024-03-01', 1.25), (9002, NULL, NULL, NULL)",
];

/// Table, format version, and what `layout.py` is to print of it.
const TABLES: &[(&str, u8)] = &[("parted", 2), ("parted_third", 3)];

const FILTER: &str = "id == 17";
const SPEC: &str = "day(ts), bucket[4](id)";
const ORDER: &str = "id desc nulls-last";
/// The unpartitioned one, and the two that the table has had.
const SPECS: &str = "3";

pub fn suite(run: &mut Run, tally: &mut Tally, cluster: &Cluster) -> Result<()> {
    for (name, version) in TABLES {
        let location = match make(cluster, name, *version) {
            Ok(location) => location,
            Err(error) => {
                tally.check(&format!("{name}: create and publish"), Err(error));
                continue;
            }
        };
        read_by_all(run, tally, cluster, name, &location)?;
        let limit = run.limit(3);
        let layout = run.python()?.script("layout.py", cluster).limit(limit);
        let layout = layout.args([location.as_str(), FILTER]).ok();
        let checked = layout.and_then(|found| check(&found));
        tally.check(&format!("{name}, planned by pyiceberg"), checked);
    }
    Ok(())
}

/// Makes the table and its heap twin, compares them, and publishes.
fn make(cluster: &Cluster, name: &str, version: u8) -> Result<String> {
    let columns = "(id bigint, region text, ts timestamptz, price numeric(9,2))";
    let table = format!("t.{name}");
    let twin = format!("t.{name}_heap");
    let mut script = format!(
        "CREATE TABLE {table} {columns} USING iceberg WITH (format_version = {version},
           partition_by = 'region, bucket(4, id), truncate(20000, price)', sort_by = 'ts DESC NULLS LAST, id',
           bloom_filter_columns = 'id, region, price');
         CREATE TABLE {twin} {columns};
         SET lake.bulk_rows = 150;"
    );
    for change in CHANGES {
        match *change {
            "FLUSH" => script.push_str(&format!("SELECT lake.flush('{table}');")),
            "PUBLISH" => script.push_str(&format!("SELECT lake.publish('{table}');")),
            "REPARTITION" => script.push_str(&format!(
                "ALTER TABLE {table} SET (partition_by = 'day(ts), bucket(4, id)', sort_by = 'id DESC NULLS LAST');"
            )),
            sql => {
                for table in [&table, &twin] {
                    script.push_str(&sql.replace("{t}", table));
                    script.push(';');
                }
            }
        }
    }
    cluster.sql(&script)?;
    let different = cluster.sql(&format!(
        "SELECT count(*) FROM ((TABLE {table} EXCEPT ALL TABLE {twin})
           UNION ALL (TABLE {twin} EXCEPT ALL TABLE {table})) d"
    ))?;
    if different != "0" {
        return Err(format!("{different} rows differ from the heap table's"));
    }
    cluster.sql(&format!("SELECT lake.publish('{table}')"))
}

fn check(found: &str) -> Result<()> {
    let lines: Vec<&str> = found.lines().map(str::trim).collect();
    let [spec, order, specs, files, rows] = lines[..] else {
        return Err(format!("not five lines: {found}"));
    };
    let expected = (SPEC, ORDER, SPECS, "1");
    if (spec, order, specs, rows) != expected {
        return Err(format!("{expected:?} expected, found:\n{found}"));
    }
    let numbers: Vec<u32> = files
        .split('/')
        .filter_map(|number| number.trim().parse().ok())
        .collect();
    match numbers[..] {
        // A bucket of four, in each of the partitions that the other columns make.
        [some, all] if some > 0 && some * 2 < all => Ok(()),
        _ => Err(format!("the filter leaves {files} files")),
    }
}
