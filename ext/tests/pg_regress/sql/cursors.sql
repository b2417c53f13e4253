-- Purpose: cursors over hot and cold rows: scrolling, holding, many at once, with and without the engine.
SET lake.bulk_rows = 10;
CREATE TABLE c_heap (id int, t text);
CREATE TABLE c_lake (id int, t text) USING iceberg;
INSERT INTO c_heap SELECT g, 'row ' || g FROM generate_series(1, 100) g;
INSERT INTO c_lake SELECT g, 'row ' || g FROM generate_series(1, 100) g;
SELECT * FROM hot_cold('c_lake');

-- forward
BEGIN;
DECLARE c NO SCROLL CURSOR FOR SELECT id FROM c_lake;
FETCH 3 FROM c;
FETCH 9 FROM c;
MOVE 80 IN c;
FETCH ALL FROM c;
FETCH 1 FROM c;
FETCH BACKWARD 1 FROM c;
ROLLBACK;

-- SCROLL, through the border between hot and cold and at both ends
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT id FROM c_lake;
FETCH 12 FROM c;
FETCH BACKWARD 4 FROM c;
FETCH FORWARD 2 FROM c;
FETCH LAST FROM c;
FETCH NEXT FROM c;
FETCH PRIOR FROM c;
FETCH BACKWARD 2 FROM c;
FETCH FIRST FROM c;
FETCH PRIOR FROM c;
FETCH ABSOLUTE 50 FROM c;
FETCH RELATIVE -45 FROM c;
FETCH ABSOLUTE -1 FROM c;
MOVE BACKWARD ALL IN c;
FETCH 1 FROM c;
ROLLBACK;
SET lake.engine = off;
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT id FROM c_lake;
FETCH 12 FROM c;
FETCH BACKWARD 4 FROM c;
FETCH LAST FROM c;
FETCH BACKWARD 2 FROM c;
FETCH FIRST FROM c;
FETCH ABSOLUTE 50 FROM c;
ROLLBACK;
RESET lake.engine;

-- WITH HOLD outlives its transaction and doesn't see later changes
BEGIN;
DECLARE h NO SCROLL CURSOR WITH HOLD FOR SELECT id FROM c_lake WHERE id > 5;
FETCH 2 FROM h;
COMMIT;
INSERT INTO c_lake SELECT g, 'later' FROM generate_series(201, 230) g;
FETCH 4 FROM h;
MOVE 80 IN h;
FETCH ALL FROM h;
CLOSE h;
BEGIN;
DECLARE h SCROLL CURSOR WITH HOLD FOR SELECT id FROM c_lake WHERE id <= 100;
FETCH 20 FROM h;
COMMIT;
FETCH BACKWARD 12 FROM h;
FETCH LAST FROM h;
CLOSE h;
TRUNCATE c_lake;
INSERT INTO c_lake SELECT g, 'row ' || g FROM generate_series(1, 100) g;

-- a cursor keeps its snapshot: rows of its own transaction that come later aren't seen
BEGIN;
DECLARE c CURSOR FOR SELECT count(*), max(id) FROM c_lake;
DECLARE d CURSOR FOR SELECT id FROM c_lake WHERE id >= 99;
INSERT INTO c_lake SELECT g, 'later' FROM generate_series(301, 330) g;
FETCH ALL FROM c;
FETCH ALL FROM d;
SELECT count(*), max(id) FROM c_lake;
ROLLBACK;
-- nor is one disturbed by a flush
BEGIN;
DECLARE c NO SCROLL CURSOR FOR SELECT id FROM c_lake;
FETCH 3 FROM c;
CALL settle();
SELECT lake.flush('c_lake') > 0 AS flushed;
FETCH 9 FROM c;
MOVE 85 IN c;
FETCH ALL FROM c;
SELECT count(*), sum(id) FROM c_lake;
ROLLBACK;
BEGIN;
DECLARE c CURSOR FOR SELECT id FROM c_lake;
FETCH 3 FROM c;
CALL settle();
SELECT lake.flush('c_lake') > 0 AS flushed;
FETCH 9 FROM c;
MOVE 85 IN c;
FETCH ALL FROM c;
FETCH BACKWARD 3 FROM c;
ROLLBACK;
SELECT count(*), sum(id) FROM c_lake;

-- WHERE CURRENT OF, hot and cold
BEGIN;
DECLARE c NO SCROLL CURSOR FOR SELECT id FROM c_lake WHERE id < 20;
FETCH 2 FROM c;
UPDATE c_lake SET t = 'changed' WHERE CURRENT OF c;
SELECT id, t FROM c_lake WHERE t = 'changed';
MOVE 10 IN c;
FETCH 1 FROM c;
DELETE FROM c_lake WHERE CURRENT OF c;
ROLLBACK;
-- a cursor that isn't said not to scroll gives the cold rows first, as Postgres' own scans do
BEGIN;
DECLARE c CURSOR FOR SELECT id FROM c_lake WHERE id < 20;
FETCH 2 FROM c;
UPDATE c_lake SET t = 'changed' WHERE CURRENT OF c;
SELECT id, t FROM c_lake WHERE t = 'changed';
MOVE 10 IN c;
FETCH 1 FROM c;
DELETE FROM c_lake WHERE CURRENT OF c;
ROLLBACK;
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT id FROM c_lake WHERE id < 20;
FETCH 2 FROM c;
UPDATE c_lake SET t = 'changed' WHERE CURRENT OF c;
FETCH LAST FROM c;
DELETE FROM c_lake WHERE CURRENT OF c;
FETCH ABSOLUTE 9 FROM c;
SELECT id, t FROM c_lake WHERE t = 'changed' OR id = 10;
ROLLBACK;
-- it turns back where heap's does
BEGIN;
DECLARE c CURSOR FOR SELECT id FROM c_lake WHERE id > 50 ORDER BY id;
FETCH 2 FROM c;
FETCH BACKWARD 1 FROM c;
FETCH LAST FROM c;
FETCH BACKWARD 2 FROM c;
DECLARE d CURSOR FOR SELECT id FROM c_lake LIMIT 95;
FETCH ABSOLUTE 95 FROM d;
FETCH BACKWARD 6 FROM d;
DECLARE g CURSOR FOR SELECT id % 2 AS half, count(*) FROM c_lake GROUP BY 1;
FETCH BACKWARD 1 FROM g;
ROLLBACK;
-- a statement that has to run in the engine turns back only if that was asked for
SET lake.engine = force;
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT id FROM c_lake;
FETCH 3 FROM c;
FETCH BACKWARD 2 FROM c;
DECLARE d CURSOR FOR SELECT id FROM c_lake;
FETCH 1 FROM d;
FETCH BACKWARD 1 FROM d;
ROLLBACK;
RESET lake.engine;

-- many cursors at once, each in the middle of its cold rows
BEGIN;
DO $$
BEGIN
    FOR i IN 1..30 LOOP
        EXECUTE format('DECLARE many%s NO SCROLL CURSOR FOR SELECT id FROM c_lake', i);
        EXECUTE format('MOVE 15 IN many%s', i);
    END LOOP;
END $$;
FETCH 1 FROM many1;
FETCH 1 FROM many30;
CLOSE many1;
FETCH 2 FROM many30;
SELECT count(*) FROM c_lake;
COMMIT;
-- the engine lets go of them a moment later
DO $$ BEGIN FOR i IN 1..500 LOOP EXIT WHEN NOT EXISTS (SELECT FROM lake.stat_streams WHERE pid = pg_backend_pid() AND state <> 'free'); PERFORM pg_sleep(0.01); END LOOP; END $$;
SELECT count(*) FROM lake.stat_streams WHERE pid = pg_backend_pid() AND state <> 'free';

-- a cursor dies with its savepoint
BEGIN;
SAVEPOINT s;
DECLARE c NO SCROLL CURSOR FOR SELECT id FROM c_lake;
FETCH 12 FROM c;
ROLLBACK TO s;
FETCH 1 FROM c;
ROLLBACK;
-- one that was opened before survives it
BEGIN;
DECLARE c NO SCROLL CURSOR FOR SELECT id FROM c_lake;
FETCH 12 FROM c;
SAVEPOINT s;
FETCH 1 FROM c;
SELECT 1 / 0;
ROLLBACK TO s;
FETCH 2 FROM c;
COMMIT;

-- PL/pgSQL
DO $$
DECLARE
    r record;
    n int := 0;
    c SCROLL CURSOR FOR SELECT id FROM c_lake;
BEGIN
    FOR r IN SELECT id FROM c_lake LOOP
        n := n + (SELECT count(*) FROM c_lake WHERE id = r.id);
    END LOOP;
    RAISE NOTICE 'loop: %', n;
    OPEN c;
    FETCH LAST FROM c INTO n;
    RAISE NOTICE 'last: %', n;
    FETCH FIRST FROM c INTO n;
    RAISE NOTICE 'first: %', n;
END $$;
-- a scan that is begun again looks at all files
CREATE TABLE c_again (id int) USING iceberg;
INSERT INTO c_again SELECT generate_series(1, 2000);
SELECT p, count(*) FROM (VALUES (0), (100), (0), (100)) v(p), LATERAL (SELECT * FROM c_again TABLESAMPLE BERNOULLI (p)) s
GROUP BY p;
-- statistics are about all rows, whatever the heap has of them
CALL settle();
VACUUM ANALYZE c_again;
SELECT reltuples, relallvisible > 0 AS visible FROM pg_class WHERE oid = 'c_again'::regclass;
VACUUM FULL c_again;
SELECT reltuples FROM pg_class WHERE oid = 'c_again'::regclass;
ANALYZE c_again;
SELECT reltuples FROM pg_class WHERE oid = 'c_again'::regclass;
DROP TABLE c_heap, c_lake, c_again;
