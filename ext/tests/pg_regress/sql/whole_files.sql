-- Purpose: DELETE of whole files does what it does on heap, with one mark for a file in place of one for each row.
SET lake.bulk_rows = 0;
-- The same statement on "<name>_heap" and "<name>_lake": how many rows, or what differs.
CREATE FUNCTION alike(stmt text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    heap bigint;
    lake bigint;
BEGIN
    EXECUTE regexp_replace(stmt, '@(\w+)', '\1_heap', 'g');
    GET DIAGNOSTICS heap = ROW_COUNT;
    EXECUTE regexp_replace(stmt, '@(\w+)', '\1_lake', 'g');
    GET DIAGNOSTICS lake = ROW_COUNT;
    RETURN CASE WHEN lake = heap THEN 'ok ' || heap ELSE format('DIFFERS: heap %s, lake %s', heap, lake) END;
END $$;
-- Marks of single rows and of whole files.
CREATE FUNCTION marks(tab text, OUT single bigint, OUT whole bigint) LANGUAGE sql AS $$
    SELECT (SELECT count(*) FROM lake.row_mark m WHERE m.storage_id = t.storage_id),
           (SELECT count(*) FROM lake.file_mark m WHERE m.storage_id = t.storage_id)
    FROM lake.tables t WHERE t.table_name = tab
$$;
CREATE TABLE w_heap (id int, v text);
CREATE TABLE w_lake (id int, v text) USING iceberg;
INSERT INTO w_heap SELECT g, 'v' || g FROM generate_series(1, 310) g;
-- Three files, and hot rows.
INSERT INTO w_lake SELECT g, 'v' || g FROM generate_series(1, 100) g;
INSERT INTO w_lake SELECT g, 'v' || g FROM generate_series(101, 200) g;
INSERT INTO w_lake SELECT g, 'v' || g FROM generate_series(201, 300) g;
SET lake.bulk_rows = -1;
INSERT INTO w_lake SELECT g, 'v' || g FROM generate_series(301, 310) g;
SELECT * FROM hot_cold('w_lake');

-- everything; what later commands of the transaction find; a rollback
BEGIN;
SELECT alike('DELETE FROM @w');
SELECT * FROM marks('w_lake');
SELECT twins('SELECT * FROM @w');
SELECT twins('SELECT count(*) FROM @w');
SELECT files, cold_rows FROM lake.tables WHERE table_name = 'w_lake';
SELECT row_count, deleted_rows FROM lake.data_files WHERE table_name = 'w_lake' ORDER BY row_start;
SELECT n_tup_del FROM pg_stat_xact_user_tables WHERE relname = 'w_lake';
SELECT alike('DELETE FROM @w');
SELECT alike('UPDATE @w SET v = ''gone''');
SELECT twins('SELECT * FROM @w FOR UPDATE');
ROLLBACK;
SELECT * FROM marks('w_lake');
SELECT twins('SELECT * FROM @w');
-- the same without the engine
SET lake.engine = off;
BEGIN;
SELECT alike('DELETE FROM @w');
SELECT * FROM marks('w_lake');
SELECT twins('SELECT * FROM @w');
ROLLBACK;
RESET lake.engine;
SELECT twins('SELECT * FROM @w');

-- savepoints, and rows that were deleted or updated before
BEGIN;
SELECT alike('DELETE FROM @w WHERE id % 10 = 0');
SAVEPOINT s;
SELECT alike('DELETE FROM @w');
SELECT * FROM marks('w_lake');
SELECT alike('INSERT INTO @w VALUES (1, ''again'')');
SELECT alike('DELETE FROM @w');
ROLLBACK TO s;
SELECT * FROM marks('w_lake');
SELECT twins('SELECT * FROM @w');
SELECT alike('UPDATE @w SET v = v || ''!'' WHERE id % 10 = 1');
SELECT alike('DELETE FROM @w');
SELECT * FROM marks('w_lake');
SELECT twins('SELECT * FROM @w');
SELECT cold_rows FROM lake.tables WHERE table_name = 'w_lake';
ROLLBACK;
SELECT twins('SELECT * FROM @w');

-- an exception of PL/pgSQL takes it back
DO $$
BEGIN
    DELETE FROM w_lake;
    RAISE EXCEPTION 'back';
EXCEPTION WHEN raise_exception THEN
    RAISE NOTICE '% rows', (SELECT count(*) FROM w_lake);
END $$;

-- a cursor goes on to see what was there when it was opened
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT id FROM w_lake ORDER BY id;
DELETE FROM w_lake;
FETCH 2 FROM c;
FETCH LAST FROM c;
SELECT count(*) FROM w_lake;
ROLLBACK;

-- row by row: RETURNING, a trigger, a filter that some rows fail, SERIALIZABLE
BEGIN;
WITH gone AS (DELETE FROM w_lake RETURNING id) SELECT count(*) FROM gone;
SELECT * FROM marks('w_lake');
ROLLBACK;
BEGIN;
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE NOTICE '% rows', (SELECT count(*) FROM gone);
    RETURN NULL;
END $$;
CREATE TRIGGER note AFTER DELETE ON w_lake REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION note();
DELETE FROM w_lake;
SELECT * FROM marks('w_lake');
ROLLBACK;
BEGIN;
SELECT alike('DELETE FROM @w WHERE id % 2 = 0');
SELECT * FROM marks('w_lake');
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT alike('DELETE FROM @w');
SELECT * FROM marks('w_lake');
ROLLBACK;

-- keys are free again for the same transaction, and later
ALTER TABLE w_heap ADD PRIMARY KEY (id);
ALTER TABLE w_lake ADD PRIMARY KEY (id);
BEGIN;
SELECT alike('DELETE FROM @w');
SELECT alike('INSERT INTO @w VALUES (5, ''new'') ON CONFLICT (id) DO UPDATE SET v = ''up''');
SELECT alike('INSERT INTO @w SELECT g, ''back'' FROM generate_series(1, 20) g ON CONFLICT DO NOTHING');
SELECT twins('SELECT * FROM @w');
SET LOCAL enable_seqscan = off;
SELECT twins('SELECT * FROM @w WHERE id IN (5, 7, 250)');
COMMIT;
SELECT * FROM marks('w_lake');
SET enable_seqscan = off;
SELECT twins('SELECT * FROM @w WHERE id IN (5, 7, 250)');
RESET enable_seqscan;
CREATE INDEX w_heap_v ON w_heap (v);
CREATE INDEX w_lake_v ON w_lake (v);
SET enable_seqscan = off;
SELECT twins('SELECT * FROM @w WHERE v IN (''back'', ''v250'')');
RESET enable_seqscan;
-- the files go, with the anchors that row locks of rolled back transactions have left
CALL settle();
SELECT lake.merge('w_lake');
SELECT * FROM marks('w_lake');
SELECT count(*) FROM lake.anchor a JOIN lake.tables t USING (storage_id) WHERE t.table_name = 'w_lake';
SELECT files, cold_rows FROM lake.tables WHERE table_name = 'w_lake';
SELECT twins('SELECT * FROM @w');
CALL settle();
SELECT lake.flush('w_lake');
SET enable_seqscan = off;
SELECT twins('SELECT * FROM @w WHERE id BETWEEN 3 AND 7 OR id = 250');
RESET enable_seqscan;
SELECT alike('DELETE FROM @w');
SELECT * FROM marks('w_lake');
SELECT twins('SELECT count(*) FROM @w');

-- marked files are not compacted, and are merged when every snapshot sees the mark
SET lake.bulk_rows = 0;
CREATE TABLE c_lake (id int) USING iceberg;
INSERT INTO c_lake SELECT generate_series(1, 10);
INSERT INTO c_lake SELECT generate_series(11, 20);
BEGIN;
DELETE FROM c_lake;
CALL settle();
SELECT lake.compact('c_lake');
SELECT lake.merge('c_lake');
SELECT count(*) FROM c_lake;
ROLLBACK;
SELECT count(*) FROM c_lake;
SELECT lake.compact('c_lake');
-- what is published has no file that is deleted as a whole
DELETE FROM c_lake;
INSERT INTO c_lake SELECT generate_series(21, 25);
SELECT lake.publish('c_lake') IS NOT NULL AS published;
SELECT summary->>'total-records' AS records, summary->>'total-data-files' AS files FROM lake.snapshots WHERE table_name = 'c_lake' AND is_current;
CALL settle();
SELECT lake.merge('c_lake');
SELECT files, cold_rows FROM lake.tables WHERE table_name = 'c_lake';

-- partitions; a table that is truncated in the transaction that made it
CREATE TABLE p_heap (k int, v text);
INSERT INTO p_heap SELECT g % 2, 'v' || g FROM generate_series(1, 100) g;
CREATE TABLE p_lake (k int, v text) PARTITION BY LIST (k);
CREATE TABLE p_0 PARTITION OF p_lake FOR VALUES IN (0) USING iceberg;
CREATE TABLE p_1 PARTITION OF p_lake FOR VALUES IN (1) USING iceberg;
INSERT INTO p_0 SELECT 0, 'v' || g FROM generate_series(2, 100, 2) g;
INSERT INTO p_1 SELECT 1, 'v' || g FROM generate_series(1, 99, 2) g;
BEGIN;
SELECT alike('DELETE FROM @p WHERE k = 0 AND v = ''v2''');
SELECT alike('DELETE FROM @p');
SELECT * FROM marks('p_0');
SELECT * FROM marks('p_1');
SELECT twins('SELECT * FROM @p');
ROLLBACK;
SELECT twins('SELECT * FROM @p');
BEGIN;
CREATE TABLE n_lake (id int) USING iceberg;
INSERT INTO n_lake SELECT generate_series(1, 10);
DELETE FROM n_lake;
TRUNCATE n_lake;
INSERT INTO n_lake SELECT generate_series(1, 5);
COMMIT;
SELECT count(*) FROM n_lake;
SELECT * FROM marks('n_lake');

-- with a filter: files of which the statistics show that every row passes
CREATE TABLE b_heap (id int, ts timestamp, n numeric(10,2), c int);
CREATE TABLE b_lake (id int, ts timestamp, n numeric(10,2), c int) USING iceberg;
INSERT INTO b_heap SELECT g, timestamp '2020-01-01' + g * interval '1 day', g * 0.5, CASE WHEN g <= 250 THEN g END FROM generate_series(1, 300) g;
INSERT INTO b_lake SELECT * FROM b_heap WHERE id <= 100;
INSERT INTO b_lake SELECT * FROM b_heap WHERE id BETWEEN 101 AND 200;
INSERT INTO b_lake SELECT * FROM b_heap WHERE id > 200;
BEGIN;
SELECT alike('DELETE FROM @b WHERE id <= 150');
SELECT * FROM marks('b_lake');
SELECT twins('SELECT * FROM @b');
ROLLBACK;
BEGIN;
SELECT alike('DELETE FROM @b WHERE ts < ''2020-04-10''');
SELECT * FROM marks('b_lake');
SELECT twins('SELECT * FROM @b');
ROLLBACK;
BEGIN;
SELECT alike('DELETE FROM @b WHERE ts <= ''2020-04-10''');
SELECT * FROM marks('b_lake');
SELECT twins('SELECT * FROM @b');
ROLLBACK;
BEGIN;
SELECT alike('DELETE FROM @b WHERE n > 50 AND n <= 100');
SELECT * FROM marks('b_lake');
SELECT twins('SELECT * FROM @b');
ROLLBACK;
BEGIN;
SELECT alike('DELETE FROM @b WHERE id BETWEEN 1 AND 300');
SELECT * FROM marks('b_lake');
SELECT twins('SELECT * FROM @b');
ROLLBACK;
BEGIN;
SELECT alike('DELETE FROM @b WHERE c > 100');
SELECT * FROM marks('b_lake');
SELECT twins('SELECT * FROM @b');
ROLLBACK;
BEGIN;
SELECT alike('DELETE FROM @b WHERE id > 200 AND c IS NULL');
SELECT * FROM marks('b_lake');
SELECT twins('SELECT * FROM @b');
ROLLBACK;
BEGIN;
SELECT alike('DELETE FROM @b WHERE id IN (1, 2, 3)');
SELECT * FROM marks('b_lake');
SELECT twins('SELECT * FROM @b');
ROLLBACK;
BEGIN;
SELECT alike('DELETE FROM @b WHERE id = 5');
SELECT alike('DELETE FROM @b WHERE id <= 100');
SELECT * FROM marks('b_lake');
SELECT twins('SELECT * FROM @b');
ROLLBACK;
SET plan_cache_mode = force_generic_plan;
PREPARE below(int) AS DELETE FROM b_lake WHERE id < $1;
BEGIN;
EXECUTE below(201);
SELECT * FROM marks('b_lake');
EXECUTE below(NULL);
SELECT * FROM marks('b_lake');
ROLLBACK;
DEALLOCATE below;
RESET plan_cache_mode;
SET lake.engine = off;
BEGIN;
SELECT alike('DELETE FROM @b WHERE id <= 100');
SELECT * FROM marks('b_lake');
ROLLBACK;
RESET lake.engine;
SELECT twins('SELECT * FROM @b');

RESET lake.bulk_rows;
DROP TABLE w_heap, w_lake, c_lake, p_heap, p_lake, n_lake, b_heap, b_lake;
DROP FUNCTION alike, marks;
