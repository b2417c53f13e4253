-- Compaction: fewer files, the same rows with the same TIDs, found by scans, indexes and row locks.
CREATE EXTENSION amcheck;
SET lake.bulk_rows = 100;
CREATE TABLE h (id int, v text, n numeric(10,2));
CREATE TABLE t (id int, v text, n numeric(10,2)) USING iceberg;
INSERT INTO t SELECT g, 'v' || g, g / 3.0 FROM generate_series(1, 1000) g;
INSERT INTO t SELECT g, 'v' || g, g / 3.0 FROM generate_series(1001, 2000) g;
-- Columns that come and go between the files.
ALTER TABLE h DROP COLUMN v;
ALTER TABLE t DROP COLUMN v;
ALTER TABLE h ADD COLUMN w text DEFAULT 'w';
ALTER TABLE t ADD COLUMN w text DEFAULT 'w';
ALTER TABLE t ALTER COLUMN n TYPE numeric(12,2);
INSERT INTO t SELECT g, g / 3.0, 'n' || g FROM generate_series(2001, 3000) g;
CREATE INDEX t_id ON t (id);
CREATE INDEX t_n ON t USING hash (n);
INSERT INTO h SELECT g, g / 3.0, CASE WHEN g > 2000 THEN 'n' || g ELSE 'w' END FROM generate_series(1, 3000) g;
DELETE FROM t WHERE id % 3 = 0;
DELETE FROM h WHERE id % 3 = 0;
CALL settle();
SELECT lake.merge('t') > 0 AS merged;
DELETE FROM t WHERE id % 7 = 0;
DELETE FROM h WHERE id % 7 = 0;
CREATE TEMP TABLE was AS SELECT ctid AS tid, * FROM t;

CREATE PROCEDURE compare() LANGUAGE plpgsql AS $$
DECLARE n bigint;
BEGIN
    SELECT count(*) INTO n FROM ((TABLE h EXCEPT ALL TABLE t) UNION ALL (TABLE t EXCEPT ALL TABLE h)) x;
    RAISE NOTICE 'different rows: %', n;
    SELECT count(*) INTO n FROM h LEFT JOIN t USING (id, n, w) WHERE t.id IS NULL;
    RAISE NOTICE 'not found: %', n;
END $$;

-- An older snapshot goes on with the old files.
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT id FROM t ORDER BY id;
FETCH 2 FROM c;
SELECT lake.compact('t');
FETCH 2 FROM c;
SELECT count(*) FROM ((SELECT ctid, * FROM t EXCEPT ALL TABLE was) UNION ALL (TABLE was EXCEPT ALL SELECT ctid, * FROM t)) x;
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT lake.compact('t');
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT lake.merge('t');
ROLLBACK;
SELECT count(*), sum(row_count), sum(deleted_rows) FROM lake.data_files WHERE table_name = 't';
SELECT lake.compact('t');
SELECT count(*), sum(row_count), sum(deleted_rows) FROM lake.data_files WHERE table_name = 't';
SELECT lake.compact('t');
SELECT count(*) FROM ((SELECT ctid, * FROM t EXCEPT ALL TABLE was) UNION ALL (TABLE was EXCEPT ALL SELECT ctid, * FROM t)) x;
CALL compare();
SET enable_seqscan = off;
CALL compare();
SELECT id, w FROM t WHERE id IN (4, 1999, 2000, 2001, 2003) ORDER BY id;
SET enable_indexscan = off;
SELECT id, w FROM t WHERE id BETWEEN 1998 AND 2003 ORDER BY id;
RESET enable_seqscan;
RESET enable_indexscan;
SELECT bt_index_check('t_id', heapallindexed => true);
-- Cursors that turn back, TIDs, samples.
SET lake.engine = off;
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT id FROM t;
MOVE 800 IN c;
FETCH BACKWARD 3 IN c;
FETCH 2 IN c;
MOVE ALL IN c;
FETCH BACKWARD 2 IN c;
COMMIT;
SELECT id FROM t WHERE ctid = (SELECT tid FROM was WHERE id = 2003);
SELECT id FROM t WHERE ctid = (SELECT tid FROM was WHERE id = 2002);
SELECT count(*) = (SELECT count(*) FROM h) AS all_of_them FROM t TABLESAMPLE SYSTEM (100);
RESET lake.engine;
-- Changes of rows of the new file, and another round.
UPDATE t SET w = 'u' WHERE id % 5 = 0;
UPDATE h SET w = 'u' WHERE id % 5 = 0;
DELETE FROM t WHERE id BETWEEN 1500 AND 2500;
DELETE FROM h WHERE id BETWEEN 1500 AND 2500;
CALL compare();
CALL settle();
SELECT lake.merge('t') > 0 AS merged;
CALL compare();
SELECT lake.flush('t') > 0 AS flushed;
CALL settle();
SELECT lake.compact('t');
CALL compare();
SELECT count(*), sum(row_count), sum(deleted_rows) FROM lake.data_files WHERE table_name = 't';
SET enable_seqscan = off;
CALL compare();
RESET enable_seqscan;
SELECT bt_index_check('t_id', heapallindexed => true);
-- VACUUM does the same.
DELETE FROM t WHERE id > 1000;
DELETE FROM h WHERE id > 1000;
CALL settle();
VACUUM t;
SELECT count(*), sum(deleted_rows) FROM lake.data_files WHERE table_name = 't';
CALL compare();
-- Rights, and tables without files.
CREATE TABLE empty_one () USING iceberg;
SELECT lake.compact('empty_one');
CREATE TEMP TABLE temporary_one (a int) USING iceberg;
SELECT lake.compact('temporary_one');
SELECT lake.compact('h');
CREATE ROLE compact_nobody;
SET ROLE compact_nobody;
SELECT lake.compact('t');
RESET ROLE;
DROP ROLE compact_nobody;
DROP PROCEDURE compare();
DROP EXTENSION amcheck;
DROP TABLE h, t, was, empty_one, temporary_one;
