-- Purpose: UPDATE, DELETE, MERGE and everything around them on cold rows do what they do on heap.
-- The same statement on "<name>_heap" and "<name>_lake": "ok n", or "ok SQLSTATE message", or what differs.
CREATE FUNCTION outcome(stmt text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    n bigint;
BEGIN
    EXECUTE stmt;
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN n;
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE || ' ' || SQLERRM;
END $$;
CREATE FUNCTION alike(stmt text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    heap text := outcome(regexp_replace(stmt, '@(\w+)', '\1_heap', 'g'));
    lake text := outcome(regexp_replace(stmt, '@(\w+)', '\1_lake', 'g'));
BEGIN
    IF replace(lake, '_lake', '') IS DISTINCT FROM replace(heap, '_heap', '') THEN
        RETURN format('DIFFERS: heap %s, lake %s', heap, lake);
    END IF;
    RETURN 'ok ' || replace(heap, '_heap', '');
END $$;
-- All rows cold, in two files.
CREATE FUNCTION load_twins(name text, columns text, query text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TABLE %s_heap (%s)', name, columns);
    EXECUTE format('CREATE TABLE %s_lake (%s) USING iceberg', name, columns);
    EXECUTE format('INSERT INTO %s_heap %s', name, query);
    EXECUTE format('INSERT INTO %s_lake %s', name, query);
    RETURN hot_cold((name || '_lake')::regclass)::text;
END $$;
SET lake.bulk_rows = 0;
SELECT load_twins('d', 'id int, k int, t text, n numeric(10,2)', 'SELECT g, g % 10, ''t'' || g, g * 1.5 FROM generate_series(1, 1000) g');
INSERT INTO d_heap SELECT g, g % 10, NULL, NULL FROM generate_series(1001, 1500) g;
INSERT INTO d_lake SELECT g, g % 10, NULL, NULL FROM generate_series(1001, 1500) g;
SELECT * FROM hot_cold('d_lake');

-- single rows, many, none, all that qualify
SELECT alike('DELETE FROM @d WHERE id = 17');
SELECT alike('DELETE FROM @d WHERE id = 17');
SELECT alike('DELETE FROM @d WHERE k = 3');
SELECT alike('UPDATE @d SET t = upper(t) || ''!'' WHERE k = 4');
SELECT alike('UPDATE @d SET t = t || ''?'' WHERE k = 4 AND id < 100');
SELECT alike('UPDATE @d SET n = NULL, t = NULL WHERE id BETWEEN 990 AND 1010');
SELECT alike('UPDATE @d SET id = id + 5000 WHERE id > 1490');
SELECT alike('UPDATE @d SET k = 1 WHERE false');
SELECT * FROM hot_cold('d_lake');
SELECT twins('SELECT * FROM @d');
SELECT twins('SELECT k, count(*), sum(n), max(t) FROM @d GROUP BY k');
SELECT twins('SELECT count(*) FROM @d');
-- RETURNING, both kinds of join, subqueries, CTEs
SELECT twins('UPDATE @d SET t = ''r'' || id WHERE id BETWEEN 200 AND 210 RETURNING *') AS three_times_the_same;
SELECT alike('UPDATE @d SET t = v.t FROM (VALUES (301, ''a''), (302, ''b''), (302, ''b'')) v (id, t) WHERE @d.id = v.id');
SELECT alike('DELETE FROM @d USING (SELECT id FROM @d WHERE id % 100 = 50) s WHERE s.id = @d.id');
SELECT alike('UPDATE @d SET n = (SELECT max(n) FROM @d) WHERE id = 303');
SELECT alike('WITH gone AS (DELETE FROM @d WHERE id BETWEEN 401 AND 410 RETURNING *) INSERT INTO @d SELECT id + 9000, k, t, n FROM gone');
SELECT alike('MERGE INTO @d USING (SELECT g AS id FROM generate_series(395, 420) g) s ON @d.id = s.id
    WHEN MATCHED AND k < 5 THEN UPDATE SET t = ''merged''
    WHEN MATCHED THEN DELETE
    WHEN NOT MATCHED THEN INSERT VALUES (s.id, 0, ''inserted'', 0)');
SELECT alike('MERGE INTO @d USING (VALUES (5), (5)) s (id) ON @d.id = s.id WHEN MATCHED THEN UPDATE SET t = ''twice''');
SELECT twins('SELECT * FROM @d');
-- ctid
SELECT alike('DELETE FROM @d WHERE ctid = (SELECT ctid FROM @d WHERE id = 5)');
SELECT alike('UPDATE @d SET t = ''by ctid'' WHERE ctid = (SELECT ctid FROM @d WHERE id = 6)');
SELECT count(*), count(DISTINCT ctid) FROM d_lake;
-- a cold row that is gone can't be had by its old ctid
CREATE TEMP TABLE old AS SELECT ctid AS c FROM d_lake WHERE id = 7;
DELETE FROM d_lake WHERE id = 7;
DELETE FROM d_heap WHERE id = 7;
SELECT count(*) FROM d_lake, old WHERE d_lake.ctid = old.c;
DELETE FROM d_lake WHERE ctid = (SELECT c FROM old);
SELECT twins('SELECT * FROM @d');

-- savepoints, errors, own writes
BEGIN;
SELECT alike('DELETE FROM @d WHERE id < 100');
SELECT twins('SELECT count(*), sum(id) FROM @d');
SAVEPOINT a;
SELECT alike('DELETE FROM @d WHERE id < 200');
SELECT alike('UPDATE @d SET n = 0 WHERE id < 300');
SELECT alike('UPDATE @d SET n = n + 1 WHERE id < 300');
SELECT twins('SELECT count(*), sum(id), sum(n) FROM @d');
ROLLBACK TO a;
SELECT twins('SELECT count(*), sum(id), sum(n) FROM @d');
SELECT alike('UPDATE @d SET n = 1 / (id - 250) WHERE id BETWEEN 240 AND 260');
SELECT twins('SELECT count(*), sum(id), sum(n) FROM @d');
SELECT alike('DELETE FROM @d WHERE id < 300');
RELEASE a;
SELECT twins('SELECT count(*), sum(id), sum(n) FROM @d');
ROLLBACK;
SELECT twins('SELECT * FROM @d');
-- deleted and inserted again, many times over
DO $$
BEGIN
    FOR i IN 1 .. 20 LOOP
        BEGIN
            UPDATE d_heap SET n = i WHERE id = 500;
            UPDATE d_lake SET n = i WHERE id = 500;
            IF i % 2 = 0 THEN
                RAISE EXCEPTION 'no';
            END IF;
        EXCEPTION WHEN raise_exception THEN
            NULL;
        END;
    END LOOP;
END $$;
SELECT twins('SELECT * FROM @d WHERE id = 500');
-- two-phase commit
BEGIN;
SELECT alike('UPDATE @d SET t = ''prepared'' WHERE id BETWEEN 600 AND 620');
SELECT alike('DELETE FROM @d WHERE id BETWEEN 621 AND 630');
PREPARE TRANSACTION 'lake_dml';
SELECT twins('SELECT * FROM @d WHERE id BETWEEN 590 AND 640');
COMMIT PREPARED 'lake_dml';
SELECT twins('SELECT * FROM @d WHERE id BETWEEN 590 AND 640');

-- row locks
SELECT twins('SELECT id, t FROM @d WHERE id BETWEEN 700 AND 705 ORDER BY id FOR UPDATE', true);
SELECT twins('SELECT id, t FROM @d WHERE id BETWEEN 700 AND 705 ORDER BY id FOR NO KEY UPDATE', true);
SELECT twins('SELECT id, t FROM @d WHERE id BETWEEN 700 AND 705 ORDER BY id FOR SHARE', true);
SELECT twins('SELECT id, t FROM @d WHERE id BETWEEN 700 AND 705 ORDER BY id FOR KEY SHARE SKIP LOCKED', true);
SELECT twins('SELECT id, t FROM @d WHERE id BETWEEN 700 AND 705 ORDER BY id LIMIT 2 FOR UPDATE NOWAIT', true);

-- a flush of what was updated, deletions after it, and once more
CALL settle();
SELECT lake.flush('d_lake') > 100 AS moved;
SELECT twins('SELECT * FROM @d');
SELECT alike('UPDATE @d SET t = ''after flush'' WHERE t LIKE ''%!''');
SELECT alike('DELETE FROM @d WHERE n IS NULL');
CALL settle();
SELECT lake.flush('d_lake') > 10 AS moved;
SELECT twins('SELECT * FROM @d');
SELECT alike('DELETE FROM @d WHERE id % 2 = 0');
SELECT twins('SELECT * FROM @d');
SELECT twins('SELECT k, count(*), min(id), max(id), sum(n) FROM @d GROUP BY k');
ANALYZE d_lake;
SELECT twins('SELECT * FROM @d');
SELECT (SELECT count(*) FROM d_lake) = cold_rows FROM lake.tables WHERE table_name = 'd_lake';
-- a merge changes nothing that a query sees, and leaves nothing to do
CALL settle();
SELECT lake.merge('d_lake') > 0 AS merged;
SELECT lake.merge('d_lake');
SELECT count(*) FROM lake.row_mark m JOIN lake.tables t USING (storage_id) WHERE t.table_name = 'd_lake';
SELECT twins('SELECT * FROM @d');
SELECT twins('SELECT k, count(*), sum(n) FROM @d GROUP BY k');
SELECT (SELECT count(*) FROM d_lake) = cold_rows FROM lake.tables WHERE table_name = 'd_lake';
SELECT alike('UPDATE @d SET t = ''after merge'' WHERE id % 9 = 0');
SELECT alike('DELETE FROM @d WHERE id % 9 = 3');
BEGIN;
CALL settle();
SELECT lake.merge('d_lake') > 0 AS merged;
ROLLBACK;
SELECT twins('SELECT * FROM @d');
-- a deletion that isn't settled stays a mark
BEGIN;
SELECT alike('DELETE FROM @d WHERE id % 9 = 6');
CALL settle();
SELECT lake.merge('d_lake') > 0 AS merged;
SELECT twins('SELECT * FROM @d');
COMMIT;
SELECT twins('SELECT * FROM @d');
-- VACUUM flushes and merges; in a transaction block it is refused, and does neither
SELECT alike('UPDATE @d SET t = ''before vacuum'' WHERE id % 9 = 1');
BEGIN;
VACUUM d_lake;
ROLLBACK;
SELECT hot > 0 AS hot FROM hot_cold('d_lake');
CALL settle();
VACUUM d_lake;
SELECT hot FROM hot_cold('d_lake');
SELECT count(*) FROM lake.row_mark m JOIN lake.tables t USING (storage_id) WHERE t.table_name = 'd_lake';
SELECT twins('SELECT * FROM @d');
SELECT alike('DELETE FROM @d');
SELECT twins('SELECT count(*) FROM @d');
SELECT cold_rows FROM lake.tables WHERE table_name = 'd_lake';
CALL settle();
SELECT lake.merge('d_lake') > 0 AS merged;
SELECT files, cold_rows FROM lake.tables WHERE table_name = 'd_lake';
CREATE INDEX d_index ON d_lake (id);
SELECT alike('INSERT INTO @d SELECT g, g, ''again'', g FROM generate_series(1, 100) g');
SELECT twins('SELECT * FROM @d WHERE id = 50');

-- a file without a row stays for the published snapshots that refer to it
CREATE TABLE z_lake (id int) USING iceberg;
INSERT INTO z_lake SELECT generate_series(1, 10);
SELECT lake.publish('z_lake') IS NOT NULL AS published;
CREATE TEMP TABLE z AS SELECT storage_id FROM lake.tables WHERE table_name = 'z_lake';
DELETE FROM z_lake;
CALL settle();
SELECT lake.merge('z_lake');
SELECT files FROM lake.tables WHERE table_name = 'z_lake';
CALL settle();
SELECT lake.sweep() >= 0 AS swept;
SELECT g.reason, g.publication FROM lake.garbage g JOIN z USING (storage_id);
DROP TABLE z_lake;

-- triggers: rows before and after, statements with transition tables
SELECT load_twins('g', 'id int, t text', 'SELECT g, ''t'' || g FROM generate_series(1, 50) g');
CREATE TABLE log_heap (what text, old text, new text);
CREATE TABLE log_lake (what text, old text, new text);
CREATE FUNCTION log_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('INSERT INTO %s VALUES ($1, $2, $3)', TG_ARGV[0]) USING TG_WHEN || ' ' || TG_OP, OLD::text, NEW::text;
    IF TG_WHEN = 'BEFORE' AND TG_OP = 'UPDATE' THEN
        NEW.t := NEW.t || '-' || OLD.t;
    END IF;
    IF TG_WHEN = 'BEFORE' AND OLD.id = 13 THEN
        RETURN NULL;
    END IF;
    RETURN CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
END $$;
CREATE FUNCTION log_statement() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('INSERT INTO %s SELECT ''transition'', string_agg(o::text, '' '' ORDER BY id), NULL FROM o', TG_ARGV[0]);
    RETURN NULL;
END $$;
CREATE TRIGGER b BEFORE UPDATE OR DELETE ON g_heap FOR EACH ROW EXECUTE FUNCTION log_row('log_heap');
CREATE TRIGGER b BEFORE UPDATE OR DELETE ON g_lake FOR EACH ROW EXECUTE FUNCTION log_row('log_lake');
CREATE TRIGGER a AFTER UPDATE OR DELETE ON g_heap FOR EACH ROW EXECUTE FUNCTION log_row('log_heap');
CREATE TRIGGER a AFTER UPDATE OR DELETE ON g_lake FOR EACH ROW EXECUTE FUNCTION log_row('log_lake');
CREATE CONSTRAINT TRIGGER c AFTER DELETE ON g_heap DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION log_row('log_heap');
CREATE CONSTRAINT TRIGGER c AFTER DELETE ON g_lake DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION log_row('log_lake');
CREATE TRIGGER s AFTER DELETE ON g_heap REFERENCING OLD TABLE AS o FOR EACH STATEMENT EXECUTE FUNCTION log_statement('log_heap');
CREATE TRIGGER s AFTER DELETE ON g_lake REFERENCING OLD TABLE AS o FOR EACH STATEMENT EXECUTE FUNCTION log_statement('log_lake');
SELECT alike('UPDATE @g SET t = ''u'' WHERE id BETWEEN 10 AND 15');
SELECT alike('DELETE FROM @g WHERE id BETWEEN 12 AND 18');
SELECT alike('MERGE INTO @g USING (VALUES (20), (21)) s (id) ON @g.id = s.id WHEN MATCHED AND s.id = 20 THEN DELETE WHEN MATCHED THEN UPDATE SET t = ''m''');
SELECT twins('SELECT * FROM @g');
SELECT twins('SELECT * FROM @log');

-- a cursor's row
BEGIN;
DECLARE ch CURSOR FOR SELECT * FROM g_heap WHERE id > 30 FOR UPDATE;
DECLARE cl CURSOR FOR SELECT * FROM g_lake WHERE id > 30 FOR UPDATE;
FETCH 3 FROM ch;
FETCH 3 FROM cl;
UPDATE g_heap SET t = 'current' WHERE CURRENT OF ch;
UPDATE g_lake SET t = 'current' WHERE CURRENT OF cl;
FETCH 1 FROM ch;
FETCH 1 FROM cl;
DELETE FROM g_heap WHERE CURRENT OF ch;
DELETE FROM g_lake WHERE CURRENT OF cl;
COMMIT;
SELECT twins('SELECT * FROM @g');

-- generated columns, checks, row security, views
SELECT load_twins('v', 'id int CHECK (id > 0), a int NOT NULL, b int GENERATED ALWAYS AS (a * 2) STORED, owner text DEFAULT ''regress_lake_user''',
    'SELECT g, g FROM generate_series(1, 20) g');
SELECT alike('UPDATE @v SET a = a + 100 WHERE id <= 3');
SELECT alike('UPDATE @v SET id = -id WHERE id = 4');
SELECT alike('UPDATE @v SET a = NULL WHERE id = 4');
SELECT alike('UPDATE @v SET owner = ''other'' WHERE id % 2 = 0');
CREATE VIEW view_heap AS SELECT id, a FROM v_heap WHERE a < 10 WITH CHECK OPTION;
CREATE VIEW view_lake AS SELECT id, a FROM v_lake WHERE a < 10 WITH CHECK OPTION;
SELECT alike('UPDATE @view SET a = 9 WHERE id = 7');
SELECT alike('UPDATE @view SET a = 99 WHERE id = 8');
SELECT alike('DELETE FROM @view WHERE id = 9');
ALTER TABLE v_heap ENABLE ROW LEVEL SECURITY;
ALTER TABLE v_lake ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON v_heap USING (owner = current_user) WITH CHECK (a < 1000);
CREATE POLICY p ON v_lake USING (owner = current_user) WITH CHECK (a < 1000);
GRANT SELECT, UPDATE, DELETE ON v_heap, v_lake TO regress_lake_user;
SET ROLE regress_lake_user;
SELECT alike('UPDATE @v SET a = a + 1');
SELECT alike('UPDATE @v SET a = a + 1000 WHERE id = 11');
SELECT alike('DELETE FROM @v WHERE id >= 15');
RESET ROLE;
SELECT twins('SELECT * FROM @v');
CREATE RULE r AS ON DELETE TO v_heap DO INSTEAD UPDATE v_heap SET a = 0 WHERE id = OLD.id;
CREATE RULE r AS ON DELETE TO v_lake DO INSTEAD UPDATE v_lake SET a = 0 WHERE id = OLD.id;
SELECT alike('DELETE FROM @v WHERE id = 12');
SELECT twins('SELECT * FROM @v');

-- foreign keys from cold rows to a heap table, with all actions
CREATE TABLE p_heap (id int PRIMARY KEY);
CREATE TABLE p_lake (id int PRIMARY KEY);
INSERT INTO p_heap SELECT g FROM generate_series(1, 10) g;
INSERT INTO p_lake SELECT g FROM generate_series(1, 10) g;
SELECT load_twins('c', 'id int, p int', 'SELECT g, g % 10 + 1 FROM generate_series(1, 40) g');
ALTER TABLE c_heap ADD CONSTRAINT fk FOREIGN KEY (p) REFERENCES p_heap ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE c_lake ADD CONSTRAINT fk FOREIGN KEY (p) REFERENCES p_lake ON DELETE CASCADE ON UPDATE CASCADE;
SELECT alike('DELETE FROM @p WHERE id = 3');
SELECT alike('UPDATE @p SET id = 77 WHERE id = 7');
SELECT alike('UPDATE @c SET p = 999 WHERE id = 1');
SELECT alike('UPDATE @c SET p = 2 WHERE id = 1');
SELECT twins('SELECT * FROM @c');
ALTER TABLE c_heap DROP CONSTRAINT fk, ADD CONSTRAINT fk FOREIGN KEY (p) REFERENCES p_heap ON DELETE SET NULL;
ALTER TABLE c_lake DROP CONSTRAINT fk, ADD CONSTRAINT fk FOREIGN KEY (p) REFERENCES p_lake ON DELETE SET NULL;
SELECT alike('DELETE FROM @p WHERE id = 4');
SELECT twins('SELECT * FROM @c');
ALTER TABLE c_heap DROP CONSTRAINT fk, ADD CONSTRAINT fk FOREIGN KEY (p) REFERENCES p_heap;
ALTER TABLE c_lake DROP CONSTRAINT fk, ADD CONSTRAINT fk FOREIGN KEY (p) REFERENCES p_lake;
SELECT alike('DELETE FROM @p WHERE id = 5');
SELECT alike('DELETE FROM @c WHERE p = 5');
SELECT alike('DELETE FROM @p WHERE id = 5');
SELECT twins('SELECT * FROM @c');

-- rows that move to another partition
CREATE TABLE m_heap (id int, k int) PARTITION BY LIST (k);
CREATE TABLE m_lake (id int, k int) PARTITION BY LIST (k);
CREATE TABLE m_heap_1 PARTITION OF m_heap FOR VALUES IN (1);
CREATE TABLE m_heap_2 PARTITION OF m_heap FOR VALUES IN (2);
CREATE TABLE m_lake_1 PARTITION OF m_lake FOR VALUES IN (1) USING iceberg;
CREATE TABLE m_lake_2 PARTITION OF m_lake FOR VALUES IN (2) USING iceberg;
INSERT INTO m_heap SELECT g, g % 2 + 1 FROM generate_series(1, 20) g;
INSERT INTO m_lake SELECT g, g % 2 + 1 FROM generate_series(1, 20) g;
SELECT alike('UPDATE @m SET k = 2 WHERE id = 2');
SELECT alike('UPDATE @m SET k = 3 - k WHERE id > 15');
SELECT alike('DELETE FROM @m WHERE k = 2 AND id < 6');
SELECT twins('SELECT * FROM @m');

-- what was deleted stays deleted when the table is rewritten or gets another column
SELECT load_twins('w', 'id int, t text', 'SELECT g, ''t'' || g FROM generate_series(1, 30) g');
SELECT alike('DELETE FROM @w WHERE id % 3 = 0');
SELECT alike('UPDATE @w SET t = NULL WHERE id % 3 = 1');
ALTER TABLE w_heap ADD COLUMN x int DEFAULT 5;
ALTER TABLE w_lake ADD COLUMN x int DEFAULT 5;
SELECT alike('UPDATE @w SET x = x + id WHERE id < 10');
SELECT twins('SELECT * FROM @w');
ALTER TABLE w_heap ALTER COLUMN id TYPE bigint;
ALTER TABLE w_lake ALTER COLUMN id TYPE bigint;
SELECT twins('SELECT * FROM @w');
BEGIN;
TRUNCATE w_lake;
ROLLBACK;
SELECT twins('SELECT * FROM @w');
SELECT lake.publish('w_lake') IS NOT NULL AS published;

-- who has inserted a row, and who deletes it
CREATE TABLE who_lake (id int) USING iceberg;
BEGIN;
INSERT INTO who_lake VALUES (1);
SELECT xmin = pg_current_xact_id()::xid AS own FROM who_lake;
SAVEPOINT s;
INSERT INTO who_lake VALUES (2);
RELEASE s;
COMMIT;
INSERT INTO who_lake VALUES (3);
SELECT count(DISTINCT xmin::text) FROM who_lake;
DELETE FROM who_lake WHERE id = 3 RETURNING id, xmax = pg_current_xact_id()::xid AS own;

DROP TABLE d_heap, d_lake, g_heap, g_lake, log_heap, log_lake, v_heap, v_lake, c_heap, c_lake, p_heap, p_lake, m_heap, m_lake, w_heap, w_lake, who_lake CASCADE;
DROP FUNCTION log_row, log_statement, alike, outcome, load_twins;
