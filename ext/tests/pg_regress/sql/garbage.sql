-- Purpose: what is garbage waits for snapshots, and what was published for Iceberg snapshots and their readers, too.
SET lake.bulk_rows = 0;
CALL settle();
SELECT lake.sweep('0') >= 0 AS swept;
CREATE TEMP TABLE g (table_name name, storage_id bigint, metadata_location text);
CREATE FUNCTION waste() RETURNS TABLE (table_name name, reason text, publication bigint, released boolean) LANGUAGE sql AS $$
    SELECT g.table_name, w.reason, w.publication, w.released IS NOT NULL
    FROM g JOIN lake.garbage w USING (storage_id) ORDER BY 1, 2
$$;

-- a table that was published stays a while, with its directory
CREATE TABLE g_plain (id int) USING iceberg;
CREATE TABLE g_published (id int) USING iceberg;
INSERT INTO g_plain SELECT generate_series(1, 20);
INSERT INTO g_published SELECT generate_series(1, 20);
SELECT lake.publish('g_published') IS NOT NULL AS published;
INSERT INTO g SELECT t.table_name, t.storage_id, t.metadata_location FROM lake.tables t WHERE t.table_name LIKE 'g\_%';
BEGIN;
DROP TABLE g_plain, g_published;
SELECT * FROM waste();
-- the transaction that says so has not ended
SELECT lake.sweep('0') >= 0 AS swept;
SELECT count(*) FROM waste();
COMMIT;
CALL settle();
SELECT lake.sweep('1 day') >= 0 AS swept;
SELECT * FROM waste();
SELECT reason, entries, removable, removable_from - since AS stays FROM lake.stat_garbage WHERE reason = 'dropped';
SELECT count(*) FROM lake.metadata_snapshots((SELECT metadata_location FROM g WHERE table_name = 'g_published'));
SELECT lake.sweep('23:59:59') >= 0 AS swept;
SELECT count(*) FROM waste();
SELECT lake.sweep('-1 second');
SELECT lake.sweep('infinity') >= 0 AS swept;
SELECT count(*) FROM waste();
SELECT lake.sweep('0') >= 0 AS swept;
SELECT count(*) FROM waste();
SELECT count(*) FROM lake.stat_garbage WHERE reason = 'dropped';

-- a file that a published snapshot needs: first the snapshot, then its readers
CREATE TABLE g_file (id int) USING iceberg;
INSERT INTO g_file SELECT generate_series(1, 20);
SELECT lake.publish('g_file') IS NOT NULL AS published;
INSERT INTO g SELECT t.table_name, t.storage_id FROM lake.tables t WHERE t.table_name = 'g_file';
DELETE FROM g_file;
CALL settle();
SELECT lake.merge('g_file');
CALL settle();
SELECT lake.sweep('0') >= 0 AS swept;
SELECT * FROM waste();
SELECT reason, entries, removable, removable_from FROM lake.stat_garbage WHERE reason = 'no live row';
DROP TABLE g_file;
CALL settle();
SELECT lake.sweep('1 day') >= 0 AS swept;
SELECT * FROM waste();
SELECT lake.sweep('0') >= 0 AS swept;
SELECT count(*) FROM waste();

-- what can't be removed doesn't keep the rest from going
CREATE TABLE g_left (id int) USING iceberg;
INSERT INTO g_left SELECT generate_series(1, 20);
INSERT INTO g SELECT t.table_name, t.storage_id FROM lake.tables t WHERE t.table_name = 'g_left';
DELETE FROM g_left;
CALL settle();
SELECT lake.merge('g_left');
INSERT INTO lake.garbage SELECT storage_id, 'base/1/PG_VERSION/' || n, 'out of reach', 3, now() FROM g, generate_series(1, 3) n WHERE table_name = 'g_left';
CALL settle();
SET client_min_messages = error;
SELECT lake.sweep('0') >= 0 AS swept;
RESET client_min_messages;
SELECT reason, count(*) FROM waste() GROUP BY reason;
SELECT reason, entries, removable, removable_from = since AS at_once FROM lake.stat_garbage WHERE reason = 'out of reach';
DELETE FROM lake.garbage WHERE reason = 'out of reach';
DROP FUNCTION waste;
DROP TABLE g_left, g;
