-- Purpose: lake.check finds every kind of damage, and nothing where there is none.
SET lake.bulk_rows = 0;
CREATE FUNCTION problems(tab regclass) RETURNS TABLE (severity text, kind text, number bigint) LANGUAGE sql AS $$
    SELECT c.severity, c.kind, count(*) FROM lake.check(tab) c GROUP BY 1, 2 ORDER BY 1, 2
$$;
CREATE TABLE c_lake (id int, t text) USING iceberg;
INSERT INTO c_lake SELECT g, 'one' FROM generate_series(1, 100) g;
INSERT INTO c_lake SELECT g, 'two' FROM generate_series(101, 200) g;
SELECT * FROM problems('c_lake');
DELETE FROM c_lake WHERE id IN (5, 6);
CALL settle();
SELECT lake.merge('c_lake');
DELETE FROM c_lake WHERE id = 7;
SET lake.bulk_rows = -1;
INSERT INTO c_lake VALUES (1000, 'hot');
SET lake.bulk_rows = 0;
SELECT * FROM problems('c_lake');
SELECT lake.publish('c_lake') IS NOT NULL AS published;
SELECT * FROM lake.check('c_lake');
SELECT severity, kind, object FROM lake.check_database() WHERE severity <> 'notice';
SELECT storage_id AS storage FROM lake.tables WHERE table_name = 'c_lake' \gset
SELECT min(row_start) AS first, max(row_start) AS last FROM lake.data_files WHERE table_name = 'c_lake' \gset

-- what is in progress is no damage
BEGIN;
INSERT INTO c_lake SELECT g, 'new' FROM generate_series(301, 400) g;
UPDATE c_lake SET t = 'changed' WHERE id = 50;
SELECT * FROM problems('c_lake');
SELECT lake.publish('c_lake') IS NOT NULL AS published;
SELECT * FROM problems('c_lake');
ROLLBACK;
SELECT kind FROM lake.check('c_lake') WHERE kind <> 'version_hint';
-- a rolled back publication leaves the hint to the next one, or to the sweep
SELECT lake.sweep() >= 0 AS swept;
SELECT * FROM lake.check('c_lake');
BEGIN READ ONLY;
SELECT * FROM problems('c_lake');
COMMIT;

-- files
BEGIN;
UPDATE lake.data_file SET path = path || '.gone' WHERE storage_id = :storage AND row_start = :first;
SELECT * FROM problems('c_lake');
ROLLBACK;
BEGIN;
UPDATE lake.data_file SET size = size + 1 WHERE storage_id = :storage AND row_start = :first;
SELECT severity, kind, detail ~ '^It has \d+ bytes instead of \d+\.$' AS explained FROM lake.check('c_lake');
ROLLBACK;
BEGIN;
UPDATE lake.data_file d SET path = (SELECT path FROM lake.data_file WHERE storage_id = :storage AND row_start = :first)
    WHERE storage_id = :storage AND row_start = :last;
SELECT * FROM problems('c_lake') WHERE kind <> 'wrong_size';
ROLLBACK;
BEGIN;
INSERT INTO lake.garbage SELECT storage_id, path, 'compacted', 3, now() FROM lake.data_file WHERE storage_id = :storage AND row_start = :first;
SELECT * FROM problems('c_lake');
ROLLBACK;
BEGIN;
INSERT INTO lake.garbage SELECT storage_id, directory || '/', 'dropped', 3, now() FROM lake.storage WHERE storage_id = :storage;
SELECT * FROM problems('c_lake');
ROLLBACK;

-- rows
BEGIN;
DELETE FROM lake.data_file WHERE storage_id = :storage AND row_start = :first;
SELECT * FROM problems('c_lake');
ROLLBACK;
BEGIN;
UPDATE lake.data_file SET row_start = :first + 50 WHERE storage_id = :storage AND row_start = :last;
SELECT * FROM problems('c_lake');
ROLLBACK;
BEGIN;
UPDATE lake.data_file SET deleted = '\x0500000004000000' WHERE storage_id = :storage AND row_start = :first;
SELECT severity, kind, detail FROM lake.check('c_lake');
UPDATE lake.data_file SET deleted = '\x63000000e8030000e9030000' WHERE storage_id = :storage AND row_start = :first;
SELECT severity, kind, detail FROM lake.check('c_lake');
UPDATE lake.data_file SET deleted = '\x0500000006' WHERE storage_id = :storage AND row_start = :first;
SELECT severity, kind, detail FROM lake.check('c_lake');
UPDATE lake.data_file SET runs = '\xff', row_end = row_start + 100, inserted = '\xff', deleted = NULL
    WHERE storage_id = :storage AND row_start = :first;
SELECT severity, kind, detail FROM lake.check('c_lake');
ROLLBACK;
BEGIN;
INSERT INTO lake.row_mark VALUES (:storage, 1, NULL, true), (:storage, 3, NULL, true);
INSERT INTO lake.anchor VALUES (:storage, 2);
INSERT INTO lake.file_mark VALUES (:storage, 4, 6);
SELECT * FROM lake.check('c_lake');
ROLLBACK;

-- what is published
BEGIN;
UPDATE lake.publication SET snapshot_id = snapshot_id + 1 WHERE storage_id = :storage;
SELECT * FROM problems('c_lake');
UPDATE lake.publication SET snapshot_id = snapshot_id - 1, contents = contents + 1 WHERE storage_id = :storage;
SELECT severity, kind, detail FROM lake.check('c_lake');
ROLLBACK;
BEGIN;
UPDATE lake.publication SET metadata_location = replace(metadata_location, 'metadata.json', 'json') WHERE storage_id = :storage;
SELECT * FROM problems('c_lake');
ROLLBACK;
BEGIN;
UPDATE lake.storage SET table_uuid = gen_random_uuid() WHERE storage_id = :storage;
SELECT * FROM problems('c_lake');
ROLLBACK;
BEGIN;
DELETE FROM lake.hot_image WHERE storage_id = :storage;
SELECT * FROM problems('c_lake');
ROLLBACK;
BEGIN;
DELETE FROM lake.publication WHERE storage_id = :storage;
SELECT severity, kind, count(*) > 3 AS several FROM lake.check('c_lake') GROUP BY 1, 2;
ROLLBACK;

-- storages
BEGIN;
UPDATE lake.storage SET relfilenumber = 1 WHERE storage_id = :storage;
SELECT * FROM lake.check('c_lake');
SELECT "table", severity, kind FROM lake.check_database() WHERE severity <> 'notice';
ROLLBACK;
BEGIN;
DELETE FROM lake.storage WHERE storage_id = :storage;
SELECT "table", severity, kind, count(*) FROM lake.check_database() WHERE severity <> 'notice' GROUP BY 1, 2, 3 ORDER BY 2, 3;
ROLLBACK;

-- who may
SET ROLE regress_lake_user;
SELECT * FROM lake.check('c_lake');
SELECT * FROM lake.check_database();
RESET ROLE;
GRANT pg_monitor TO regress_lake_user;
SET ROLE regress_lake_user;
SELECT * FROM lake.check('c_lake');
SELECT * FROM lake.check_database() WHERE severity = 'error';
RESET ROLE;
REVOKE pg_monitor FROM regress_lake_user;
CREATE TABLE c_heap (id int);
CREATE TEMP TABLE c_temp (id int) USING iceberg;
SELECT * FROM lake.check('c_heap');
SELECT * FROM lake.check('c_temp');
SELECT * FROM lake.check(NULL);

-- in the files themselves, which go with the tables
SELECT location || '/data/stray' AS stray, location || '/metadata/version-hint.text' AS hint,
       replace(metadata_location, 'file://', '') AS metadata
FROM lake.tables WHERE table_name = 'c_lake' \gset
SELECT path AS first FROM lake.data_files WHERE table_name = 'c_lake' ORDER BY row_start LIMIT 1 \gset
COPY (SELECT 1) TO :'stray';
SELECT severity, kind, object LIKE '%/data/stray' AS named, detail FROM lake.check('c_lake');
COPY (SELECT '00000-other') TO :'hint';
SELECT severity, kind, detail FROM lake.check('c_lake') WHERE kind <> 'unreferenced_file';
COPY (SELECT 'broken') TO :'first';
SELECT * FROM problems('c_lake');
COPY (SELECT 'broken') TO :'metadata';
SELECT * FROM problems('c_lake');
DROP TABLE c_lake, c_heap, c_temp;
CALL settle();
SELECT lake.sweep('0') > 0 AS swept;
SELECT severity, kind, object FROM lake.check_database() WHERE severity <> 'notice';
DROP FUNCTION problems;
