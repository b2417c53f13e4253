-- Purpose: flush and publish change where rows are and what outside engines see, never what queries return.
SET lake.bulk_rows = -1;
CREATE TABLE f_heap (id int, t text, n numeric(10,2));
CREATE TABLE f_lake (id int, t text, n numeric(10,2)) USING iceberg;
CALL settle();
SELECT lake.flush('f_lake');
INSERT INTO f_heap SELECT g, 't' || g, g * 0.5 FROM generate_series(1, 1000) g;
INSERT INTO f_lake SELECT g, 't' || g, g * 0.5 FROM generate_series(1, 1000) g;
SELECT * FROM hot_cold('f_lake');
-- hot rows can be changed
UPDATE f_heap SET t = 'changed' WHERE id % 10 = 0;
UPDATE f_lake SET t = 'changed' WHERE id % 10 = 0;
DELETE FROM f_heap WHERE id % 7 = 0;
DELETE FROM f_lake WHERE id % 7 = 0;
SELECT twins('SELECT * FROM @f');
CALL settle();
SELECT lake.flush('f_lake');
SELECT * FROM hot_cold('f_lake');
SELECT twins('SELECT * FROM @f');
CALL settle();
SELECT lake.flush('f_lake');
-- nothing more to do, also after VACUUM
VACUUM f_lake;
CALL settle();
SELECT lake.flush('f_lake');
SELECT twins('SELECT * FROM @f');
-- hot and cold mixed, a bulk load's file, a second flush
INSERT INTO f_heap SELECT g, NULL, NULL FROM generate_series(2001, 2010) g;
INSERT INTO f_lake SELECT g, NULL, NULL FROM generate_series(2001, 2010) g;
SET lake.bulk_rows = 10;
INSERT INTO f_heap SELECT g, 'bulk', g FROM generate_series(3001, 3100) g;
INSERT INTO f_lake SELECT g, 'bulk', g FROM generate_series(3001, 3100) g;
UPDATE f_heap SET t = 'again' WHERE id BETWEEN 2001 AND 2005;
UPDATE f_lake SET t = 'again' WHERE id BETWEEN 2001 AND 2005;
SELECT * FROM hot_cold('f_lake');
SELECT twins('SELECT * FROM @f');
SELECT twins('SELECT t, count(*), sum(n) FROM @f GROUP BY t');
SELECT twins('SELECT * FROM @f ORDER BY n DESC NULLS LAST, id LIMIT 15', true);
CALL settle();
SELECT lake.flush('f_lake');
SELECT twins('SELECT * FROM @f');
SELECT twins('SELECT t, count(*), sum(n) FROM @f GROUP BY t');
SELECT * FROM hot_cold('f_lake');

-- a flush that is rolled back
INSERT INTO f_heap VALUES (4000, 'x', 1), (4001, 'y', 2);
INSERT INTO f_lake VALUES (4000, 'x', 1), (4001, 'y', 2);
BEGIN;
CALL settle();
SELECT lake.flush('f_lake');
SELECT * FROM hot_cold('f_lake');
ROLLBACK;
SELECT * FROM hot_cold('f_lake');
SELECT twins('SELECT * FROM @f');
-- after that the rows can still be changed
UPDATE f_heap SET t = 'z' WHERE id = 4000;
UPDATE f_lake SET t = 'z' WHERE id = 4000;
-- a flush in a subtransaction that is rolled back, then one that is not
BEGIN;
SAVEPOINT s;
CALL settle();
SELECT lake.flush('f_lake') > 0 AS moved;
ROLLBACK TO s;
SELECT count(*) FROM f_lake WHERE id >= 4000;
CALL settle();
SELECT lake.flush('f_lake') > 0 AS moved;
COMMIT;
SELECT twins('SELECT * FROM @f');
SELECT * FROM hot_cold('f_lake');
-- rows of this transaction aren't settled: they stay hot
BEGIN;
INSERT INTO f_lake VALUES (4002, 'own', 3);
CALL settle();
SELECT lake.flush('f_lake');
SELECT count(*) FROM f_lake WHERE id = 4002;
COMMIT;
INSERT INTO f_heap VALUES (4002, 'own', 3);
SELECT twins('SELECT * FROM @f');
CALL settle();
SELECT lake.flush('f_lake');
SELECT twins('SELECT * FROM @f');

-- values of every shape survive the move: toasted, empty, wide
CREATE TABLE f_wide_heap (id int, big text, bin bytea, arr int[], js jsonb);
CREATE TABLE f_wide_lake (id int, big text, bin bytea, arr int[], js jsonb) USING iceberg;
INSERT INTO f_wide_heap SELECT g, (SELECT string_agg(md5(g || '-' || i), '') FROM generate_series(1, 500) i), decode(repeat(md5(g::text), 300), 'hex'),
    ARRAY(SELECT generate_series(1, g)), jsonb_build_object('k', repeat('v', g * 100)) FROM generate_series(1, 30) g;
INSERT INTO f_wide_heap VALUES (31, '', '', '{}', '{}'), (32, NULL, NULL, NULL, 'null');
INSERT INTO f_wide_lake SELECT * FROM f_wide_heap;
CALL settle();
SELECT lake.flush('f_wide_lake');
SELECT twins('SELECT id, md5(big), length(big), md5(bin), arr, md5(js::text) FROM @f_wide');
SELECT twins('SELECT * FROM @f_wide');

-- the views
SELECT schema_name, table_name, "table", format_version, files, cold_rows, cold_bytes > 0 AS has_bytes,
       metadata_location IS NULL AS unpublished, snapshot_id FROM lake.tables WHERE table_name LIKE 'f\_%' ORDER BY 2;
SELECT table_name, sum(row_count), bool_and(size > 0) AS sized, sum(deleted_rows) AS deleted FROM lake.data_files WHERE table_name LIKE 'f\_%' GROUP BY 1 ORDER BY 1;
SELECT count(*) FROM lake.data_files a JOIN lake.data_files b ON a.path = b.path WHERE a.table_name <> b.table_name;
SELECT count(*) FROM lake.snapshots WHERE table_name = 'f_lake';
SELECT count(*) FROM lake.iceberg_tables WHERE table_name = 'f_lake';

-- publication
SELECT lake.publish('f_lake') LIKE 'file:///%.metadata.json' AS location;
SELECT operation, parent_id IS NULL AS first, sequence_number, is_current,
       summary ->> 'total-records' AS records, summary ->> 'total-delete-files' AS delete_files
FROM lake.snapshots WHERE table_name = 'f_lake' ORDER BY sequence_number;
SELECT count(*) AS rows FROM f_lake;
SELECT catalog_name = current_database() AS c, table_namespace, table_name, metadata_location IS NOT NULL AS m, previous_metadata_location IS NOT NULL AS p, iceberg_type
FROM lake.iceberg_tables WHERE table_name = 'f_lake';
-- nothing has changed: the same snapshot
SELECT lake.publish('f_lake') = (SELECT metadata_location FROM lake.tables WHERE table_name = 'f_lake') AS same;
SELECT count(*) FROM lake.snapshots WHERE table_name = 'f_lake';
-- with hot rows, changed hot rows, and after their flush
INSERT INTO f_lake VALUES (5000, 'hot', 1), (5001, 'hot', 2);
SELECT lake.publish('f_lake') IS NOT NULL AS published;
SELECT sequence_number, is_current, summary ->> 'total-records' AS records, parent_id IS NULL AS first FROM lake.snapshots WHERE table_name = 'f_lake' ORDER BY 1;
DELETE FROM f_lake WHERE id = 5001;
SELECT lake.publish('f_lake') IS NOT NULL AS published;
SELECT sequence_number, is_current, summary ->> 'total-records' AS records FROM lake.snapshots WHERE table_name = 'f_lake' ORDER BY 1;
CALL settle();
SELECT lake.flush('f_lake');
SELECT lake.publish('f_lake') IS NOT NULL AS published;
SELECT sequence_number, is_current, summary ->> 'total-records' AS records FROM lake.snapshots WHERE table_name = 'f_lake' ORDER BY 1;
SELECT metadata_location <> previous_metadata_location AS moved FROM lake.iceberg_tables WHERE table_name = 'f_lake';
-- a rolled back publication
BEGIN;
INSERT INTO f_lake VALUES (6000, 'no', 1);
SELECT lake.publish('f_lake') IS NOT NULL AS published;
ROLLBACK;
SELECT count(*) FROM lake.snapshots WHERE table_name = 'f_lake';
SELECT max(summary ->> 'total-records') FROM lake.snapshots WHERE table_name = 'f_lake' AND is_current;
-- TRUNCATE starts a new Iceberg table
TRUNCATE f_lake;
SELECT count(*) FROM lake.iceberg_tables WHERE table_name = 'f_lake';
SELECT lake.publish('f_lake') IS NOT NULL AS published;
SELECT sequence_number, summary ->> 'total-records' AS records FROM lake.snapshots WHERE table_name = 'f_lake' ORDER BY 1;

-- format version 3
CREATE TABLE f_three (id int, t text) USING iceberg WITH (format_version = 3);
INSERT INTO f_three SELECT g, 'x' FROM generate_series(1, 50) g;
CALL settle();
SELECT lake.flush('f_three'), (SELECT format_version FROM lake.tables WHERE table_name = 'f_three');
SELECT lake.publish('f_three') IS NOT NULL AS published;
SELECT sequence_number, summary ->> 'total-records' AS records FROM lake.snapshots WHERE table_name = 'f_three';
CREATE TABLE f_three_as USING iceberg WITH (format_version = 3) AS SELECT * FROM f_three;
SELECT format_version FROM lake.tables WHERE table_name = 'f_three_as';
TRUNCATE f_three;
SELECT format_version FROM lake.tables WHERE table_name = 'f_three';

-- one that was never written to, and one without columns
CREATE TABLE f_empty (id int) USING iceberg;
SELECT lake.publish('f_empty') IS NOT NULL AS published;
SELECT summary ->> 'total-records' AS records FROM lake.snapshots WHERE table_name = 'f_empty';

-- names that need quotes
CREATE SCHEMA "F Schema";
CREATE TABLE "F Schema"."T ""x"" é" ("a b" int, "select" text) USING iceberg;
INSERT INTO "F Schema"."T ""x"" é" SELECT g, 'q' FROM generate_series(1, 20) g;
CALL settle();
SELECT lake.flush('"F Schema"."T ""x"" é"');
SELECT lake.publish('"F Schema"."T ""x"" é"') IS NOT NULL AS published;
SELECT table_namespace, table_name FROM lake.iceberg_tables WHERE table_namespace LIKE 'F%';
SELECT sum("a b"), max("select") FROM "F Schema"."T ""x"" é";
ALTER TABLE "F Schema"."T ""x"" é" RENAME TO renamed;
ALTER TABLE "F Schema".renamed SET SCHEMA public;
SELECT table_namespace, table_name FROM lake.iceberg_tables WHERE table_name = 'renamed';
SELECT sum("a b") FROM renamed;
SELECT lake.sweep() >= 0 AS swept;
SELECT sum("a b") FROM renamed;
-- in the statistics a flush neither scans nor deletes, and VACUUM counts cold rows as well
SET lake.bulk_rows = -1;
CREATE TABLE f_stat (id int) USING iceberg;
INSERT INTO f_stat SELECT generate_series(1, 100);
CALL settle();
BEGIN;
SELECT lake.flush('f_stat');
SELECT seq_scan, seq_tup_read, n_tup_del FROM pg_stat_xact_user_tables WHERE relname = 'f_stat';
COMMIT;
SELECT pg_stat_force_next_flush();
VACUUM f_stat;
SELECT pg_stat_force_next_flush();
SELECT n_live_tup, n_tup_ins, n_tup_del FROM pg_stat_user_tables WHERE relname = 'f_stat';
DROP TABLE f_stat;
DROP SCHEMA "F Schema";
DROP TABLE renamed, f_heap, f_lake, f_wide_heap, f_wide_lake, f_three, f_three_as, f_empty;
SELECT count(*) FROM lake.tables WHERE table_name LIKE 'f\_%';
