-- Purpose: indexes over hot and cold rows: every kind of index, constraint, scan and rebuild does what it does on heap.
CREATE EXTENSION amcheck;
CREATE EXTENSION btree_gist;
-- A statement on "<name>_heap" or "<name>_lake", of which it says "@name": the rows that it is about, or its error.
CREATE FUNCTION outcome(stmt text, twin text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    n bigint;
    message text;
    detail text;
    name text;
BEGIN
    PERFORM set_config('default_table_access_method', CASE twin WHEN 'lake' THEN 'iceberg' ELSE twin END, true);
    EXECUTE regexp_replace(stmt, '@(\w+)', '\1_' || twin, 'g');
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN n;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, name = CONSTRAINT_NAME;
    RETURN replace(concat_ws(' ', SQLSTATE, message, nullif(detail, ''), nullif('constraint ' || name, 'constraint ')), '_' || twin, '');
END $$;
-- The same statement on both: "ok n", or "ok SQLSTATE message", or what differs.
CREATE FUNCTION alike(stmt text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    heap text := outcome(stmt, 'heap');
    lake text := outcome(stmt, 'lake');
BEGIN
    PERFORM set_config('default_table_access_method', 'heap', true);
    IF lake IS DISTINCT FROM heap THEN
        RETURN format('DIFFERS: heap %s, lake %s', heap, lake);
    END IF;
    RETURN 'ok ' || heap;
END $$;
-- `twins` with plans that have node `node`, on both tables.
CREATE FUNCTION through(node text, query text, ordered bool DEFAULT false) RETURNS text LANGUAGE plpgsql
SET enable_seqscan = off SET enable_indexscan = on SET enable_indexonlyscan = on SET enable_bitmapscan = on SET enable_sort = on AS $$
DECLARE
    twin text;
    line text;
    plan text;
BEGIN
    PERFORM set_config('enable_bitmapscan', (node ~ 'Bitmap')::text, true);
    PERFORM set_config('enable_indexonlyscan', (node ~ 'Only')::text, true);
    PERFORM set_config('enable_indexscan', (node !~ 'Bitmap')::text, true);
    PERFORM set_config('enable_sort', (node !~ '^Index')::text, true);
    FOREACH twin IN ARRAY ARRAY['heap', 'lake'] LOOP
        plan := '';
        FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || regexp_replace(query, '@(\w+)', '\1_' || twin, 'g') LOOP
            plan := plan || line || E'\n';
        END LOOP;
        IF strpos(plan, node || ' ') = 0 AND strpos(plan, node || E'\n') = 0 THEN
            RETURN format('DIFFERS: no %s on %s: %s', node, twin, plan);
        END IF;
    END LOOP;
    RETURN twins(query, ordered);
END $$;
-- Makes the rows of tables cold; says how many.
CREATE PROCEDURE freeze_rows(VARIADIC names text[]) LANGUAGE plpgsql AS $$
DECLARE
    name text;
    n bigint;
BEGIN
    FOREACH name IN ARRAY names LOOP
        COMMIT;
        CALL settle();
        n := lake.flush((name || '_lake')::regclass);
        RAISE NOTICE '% % rows flushed, % hot', n, name, (SELECT hot FROM hot_cold((name || '_lake')::regclass));
    END LOOP;
END $$;
-- Removes what is dead in files and indexes.
CREATE PROCEDURE merge_rows(VARIADIC names text[]) LANGUAGE plpgsql AS $$
DECLARE
    name text;
    n bigint;
BEGIN
    FOREACH name IN ARRAY names LOOP
        COMMIT;
        CALL settle();
        n := lake.merge((name || '_lake')::regclass);
        RAISE NOTICE '% marks of % merged', n, name;
    END LOOP;
END $$;
-- What amcheck finds wrong in the btree indexes of all iceberg tables.
CREATE FUNCTION check_indexes() RETURNS TABLE (name regclass, problem text) LANGUAGE plpgsql AS $$
DECLARE
    is_unique bool;
BEGIN
    FOR name, is_unique IN
        SELECT i.indexrelid::regclass, i.indisunique
        FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am a ON a.oid = x.relam
            JOIN pg_class t ON t.oid = i.indrelid JOIN pg_am m ON m.oid = t.relam
        WHERE a.amname = 'btree' AND m.amname = 'iceberg' AND i.indisvalid AND x.relkind = 'i' ORDER BY x.relname
    LOOP
        BEGIN
            PERFORM bt_index_check(name, true, is_unique);
            PERFORM bt_index_parent_check(name, true, true, is_unique);
        EXCEPTION WHEN OTHERS THEN
            problem := SQLERRM;
            RETURN NEXT;
        END;
    END LOOP;
END $$;
SET lake.bulk_rows = 0;

-- every access method, over two files, changed and deleted cold rows, and hot rows
SELECT alike('CREATE TABLE @i (id int, k int, t text, a int[], b box, p point, r int4range)');
SELECT alike('INSERT INTO @i SELECT g, g % 100, ''t'' || g % 500, ARRAY[g % 7, g % 11, g], box(point(g, g), point(g + 2, g + 3)), point(g % 50, g / 50), int4range(g, g + 3)
    FROM generate_series(1, 3000) g');
SELECT * FROM hot_cold('i_lake');
SELECT alike('CREATE UNIQUE INDEX @i_id ON @i (id)');
SELECT alike('CREATE INDEX @i_k ON @i (k, id)');
SELECT alike('CREATE INDEX @i_t ON @i USING hash (t)');
SELECT alike('CREATE INDEX @i_a ON @i USING gin (a)');
SELECT alike('CREATE INDEX @i_b ON @i USING gist (b)');
SELECT alike('CREATE INDEX @i_p ON @i USING gist (p)');
SELECT alike('CREATE INDEX @i_r ON @i USING spgist (r)');
SELECT alike('CREATE INDEX @i_expr ON @i (lower(t) text_pattern_ops, (id + k))');
SELECT alike('CREATE INDEX @i_part ON @i (t) INCLUDE (k) WHERE k > 90');
SELECT alike('INSERT INTO @i SELECT g, g % 100, NULL, NULL, NULL, NULL, NULL FROM generate_series(3001, 3100) g');
SELECT alike('INSERT INTO @i SELECT g, g % 100, ''t'' || g % 500, ARRAY[g % 7, g % 11, g], box(point(g, g), point(g + 2, g + 3)), point(g % 50, g / 50), int4range(g, g + 3)
    FROM generate_series(3101, 4000) g');
SELECT * FROM hot_cold('i_lake');
CALL freeze_rows('i');
SELECT alike('UPDATE @i SET t = t || ''x'', k = k + 1, a = a || 77, b = box(point(-id, 0), point(-id, 1)), p = point(id, 1000), r = int4range(-id, 5 - id) WHERE id % 13 = 0');
SELECT alike('UPDATE @i SET id = id + 100000 WHERE id % 17 = 0');
SELECT alike('DELETE FROM @i WHERE id % 19 = 0');
SELECT alike('INSERT INTO @i SELECT g, g % 100, ''t'' || g % 500, ARRAY[g % 7, g % 11, g], box(point(g, g), point(g + 2, g + 3)), point(g % 50, g / 50), int4range(g, g + 3)
    FROM generate_series(4001, 4200) g');
CREATE PROCEDURE scans(n int) LANGUAGE plpgsql AS $$
DECLARE
    node text;
    query text;
    answer text;
    bad text := '';
    total int := 0;
BEGIN
    FOR node, query IN VALUES
        ('Index Scan', 'SELECT * FROM @i WHERE id = 500'), ('Index Scan', 'SELECT * FROM @i WHERE id = 17'),
        ('Index Scan', 'SELECT * FROM @i WHERE id BETWEEN 1000 AND 3050'), ('Index Scan', 'SELECT * FROM @i WHERE id = ANY (''{1,13,17,19,3001,4001,9999}'')'),
        ('Index Scan', 'SELECT * FROM @i WHERE k = 7 AND id > 2000'), ('Index Scan', 'SELECT t FROM @i WHERE id > 100000'),
        ('Index Scan Backward', 'SELECT * FROM @i WHERE id < 600 ORDER BY id DESC'), ('Index Scan', 'SELECT id, k FROM @i WHERE id > 3900 ORDER BY id'),
        ('Index Only Scan', 'SELECT id FROM @i WHERE id < 700'), ('Index Only Scan Backward', 'SELECT id FROM @i WHERE id < 700 ORDER BY id DESC'),
        ('Index Only Scan', 'SELECT count(*) FROM @i WHERE id > 0'), ('Index Only Scan', 'SELECT k, count(*), max(id) FROM @i WHERE k < 20 GROUP BY k'),
        ('Index Only Scan', 'SELECT max(id) FROM @i'), ('Index Only Scan', 'SELECT min(id) FROM @i WHERE id > 1000'), ('Index Only Scan', 'SELECT min(k), max(k) FROM @i'),
        ('Index Only Scan', 'SELECT k, id FROM @i WHERE k IN (3, 4, 5) ORDER BY k, id'), ('Index Only Scan', 'SELECT k, t FROM @i WHERE k > 90 AND t = ''t91'''),
        ('Bitmap Heap Scan', 'SELECT * FROM @i WHERE id BETWEEN 1000 AND 3050'), ('Bitmap Heap Scan', 'SELECT * FROM @i WHERE k = 7'),
        ('Bitmap Heap Scan', 'SELECT count(*) FROM @i WHERE k BETWEEN 10 AND 80'), ('BitmapOr', 'SELECT * FROM @i WHERE k = 5 OR id = 17 OR id > 100000'),
        ('Index Scan', 'SELECT * FROM @i WHERE t = ''t77'''), ('Bitmap Heap Scan', 'SELECT * FROM @i WHERE t = ''t77'''), ('Index Scan', 'SELECT * FROM @i WHERE t = ''t26x'''),
        ('Bitmap Heap Scan', 'SELECT * FROM @i WHERE a @> ARRAY[3, 5]'), ('Bitmap Heap Scan', 'SELECT * FROM @i WHERE a && ARRAY[77, 100]'),
        ('Index Scan', 'SELECT * FROM @i WHERE b && box(point(100, 100), point(200, 200))'), ('Bitmap Heap Scan', 'SELECT * FROM @i WHERE b <@ box(point(-2000, -1), point(50, 50))'),
        ('Index Only Scan', 'SELECT b FROM @i WHERE b && box(point(100, 100), point(200, 200))'),
        ('Index Scan', 'SELECT * FROM @i WHERE r @> 777'), ('Bitmap Heap Scan', 'SELECT * FROM @i WHERE r && int4range(-100, 100)'), ('Index Only Scan', 'SELECT r FROM @i WHERE r && int4range(1000, 1100)'),
        ('Index Scan', 'SELECT * FROM @i WHERE lower(t) = ''t100'' AND id + k = 100'), ('Index Scan', 'SELECT id FROM @i WHERE lower(t) ~~ ''t4%x'''),
        ('Index Scan', 'SELECT * FROM @i WHERE t IS NULL AND k > 90'), ('Index Scan', 'SELECT t FROM @i WHERE t = ''t92'' AND k > 90'),
        ('Merge Join', 'SELECT x.id, y.t FROM @i x JOIN @i y ON x.id = y.id WHERE x.id < 2000 AND y.k < 30'),
        ('Nested Loop', 'SELECT v.id, x.t FROM (VALUES (1), (17), (26), (3500), (4100)) v (id), LATERAL (SELECT * FROM @i WHERE id = v.id OFFSET 0) x')
    LOOP
        total := total + 1;
        IF node = 'Merge Join' THEN
            SET LOCAL enable_hashjoin = off;
            SET LOCAL enable_nestloop = off;
        END IF;
        answer := through(node, query, query ~ 'ORDER BY');
        RESET enable_hashjoin;
        RESET enable_nestloop;
        IF answer <> 'ok' THEN
            RAISE NOTICE '% %: %', node, query, answer;
        END IF;
    END LOOP;
    RAISE NOTICE '% scans tried', total;
END $$;
CALL scans(1);
SELECT through('Index Scan', 'SELECT id, p <-> point(3, 20) FROM @i ORDER BY p <-> point(3, 20), id LIMIT 5', true) AS nearest_wants_a_sort;
SELECT through('Index Scan', 'SELECT p <-> point(3.3, 20.2) AS d FROM @i ORDER BY p <-> point(3.3, 20.2) LIMIT 50', true) AS nearest;
SELECT through('Index Only Scan', 'SELECT p FROM @i ORDER BY p <-> point(3.3, 20.2) LIMIT 5', true) AS nearest_only;
EXPLAIN (COSTS OFF) SELECT p FROM i_lake ORDER BY p <-> point(3.3, 20.2) LIMIT 5;
EXPLAIN (COSTS OFF) SELECT * FROM i_lake WHERE id = 5;
SELECT * FROM check_indexes();
-- flushed and merged, vacuumed, rebuilt in every way: the same
CALL freeze_rows('i');
CALL scans(2);
SELECT alike('DELETE FROM @i WHERE id % 23 = 0');
SELECT alike('UPDATE @i SET k = 100 - k WHERE id % 29 = 0');
CALL merge_rows('i');
CALL scans(3);
SELECT * FROM check_indexes();
VACUUM (INDEX_CLEANUP on) i_lake;
CALL scans(4);
REINDEX INDEX i_id_lake;
REINDEX INDEX CONCURRENTLY i_k_lake;
REINDEX TABLE i_lake;
CALL scans(5);
REINDEX TABLE CONCURRENTLY i_lake;
CALL scans(6);
SELECT * FROM check_indexes();
SELECT alike('DELETE FROM @i WHERE id % 31 = 0');
SELECT alike('UPDATE @i SET t = ''again'' WHERE id % 37 = 0');
DROP INDEX i_k_lake, i_k_heap;
DROP INDEX CONCURRENTLY i_a_lake;
DROP INDEX CONCURRENTLY i_a_heap;
CREATE INDEX CONCURRENTLY i_k_lake ON i_lake (k, id);
CREATE INDEX CONCURRENTLY i_k_heap ON i_heap (k, id);
CREATE INDEX CONCURRENTLY i_a_lake ON i_lake USING gin (a);
CREATE INDEX CONCURRENTLY i_a_heap ON i_heap USING gin (a);
CALL scans(7);
CALL freeze_rows('i');
CALL merge_rows('i');
CALL scans(8);
SELECT * FROM check_indexes();
-- rewritten
SELECT alike('ALTER TABLE @i ALTER COLUMN k TYPE bigint');
CALL scans(9);
CLUSTER i_heap USING i_k_heap;
CLUSTER i_lake USING i_k_lake;
CALL scans(10);
CALL freeze_rows('i');
SELECT alike('DELETE FROM @i WHERE id % 41 = 0');
SELECT alike('UPDATE @i SET t = ''clustered'' WHERE id % 43 = 0');
CALL scans(11);
VACUUM ANALYZE i_lake;
CALL scans(12);
SELECT * FROM check_indexes();
SELECT alike('ALTER TABLE @i ADD COLUMN x int DEFAULT 5, ADD COLUMN y int GENERATED ALWAYS AS (id % 10) STORED');
SELECT alike('CREATE INDEX @i_x ON @i (x, y)');
CALL freeze_rows('i');
SELECT through('Index Only Scan', 'SELECT x, y, count(*) FROM @i WHERE x = 5 GROUP BY x, y');
CALL scans(13);

-- cursors that scroll, over hot and cold rows; ones that are written through
BEGIN;
SET LOCAL enable_seqscan = off;
SET LOCAL enable_bitmapscan = off;
SET LOCAL enable_sort = off;
DECLARE ch SCROLL CURSOR FOR SELECT id, t FROM i_heap WHERE id BETWEEN 3990 AND 4010 ORDER BY id;
DECLARE cl SCROLL CURSOR FOR SELECT id, t FROM i_lake WHERE id BETWEEN 3990 AND 4010 ORDER BY id;
CREATE FUNCTION moves(c refcursor) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    r record;
    s text := '';
BEGIN
    FETCH ABSOLUTE 5 FROM c INTO r; s := s || ' ' || r.id;
    FETCH NEXT FROM c INTO r; s := s || ' ' || r.id;
    FETCH PRIOR FROM c INTO r; s := s || ' ' || r.id;
    FETCH RELATIVE 7 FROM c INTO r; s := s || ' ' || r.id;
    FETCH LAST FROM c INTO r; s := s || ' ' || r.id || r.t;
    FETCH RELATIVE -9 FROM c INTO r; s := s || ' ' || r.id || r.t;
    FETCH FIRST FROM c INTO r; s := s || ' ' || r.id || r.t;
    RETURN s;
END $$;
SELECT moves('ch') = moves('cl') AS alike, moves('cl') = moves('cl') AS again;
DECLARE uh CURSOR FOR SELECT id, t FROM i_heap WHERE id BETWEEN 3000 AND 4100 ORDER BY id FOR UPDATE;
DECLARE ul CURSOR FOR SELECT id, t FROM i_lake WHERE id BETWEEN 3000 AND 4100 ORDER BY id FOR UPDATE;
EXPLAIN (COSTS OFF) SELECT id, t FROM i_lake WHERE id BETWEEN 3000 AND 4100 ORDER BY id FOR UPDATE;
FETCH 2 FROM uh;
FETCH 2 FROM ul;
UPDATE i_heap SET t = 'current', id = 700001 WHERE CURRENT OF uh;
UPDATE i_lake SET t = 'current', id = 700001 WHERE CURRENT OF ul;
FETCH 1 FROM uh;
FETCH 1 FROM ul;
DELETE FROM i_heap WHERE CURRENT OF uh;
DELETE FROM i_lake WHERE CURRENT OF ul;
DECLARE ph CURSOR FOR SELECT id FROM i_heap WHERE id > 500 ORDER BY id;
DECLARE pl CURSOR FOR SELECT id FROM i_lake WHERE id > 500 ORDER BY id;
FETCH 1 FROM ph;
FETCH 1 FROM pl;
-- deleted after the cursor was opened: it sees them nevertheless
SELECT alike('DELETE FROM @i WHERE id BETWEEN 501 AND 510');
FETCH 3 FROM ph;
FETCH 3 FROM pl;
DELETE FROM i_heap WHERE CURRENT OF ph;
DELETE FROM i_lake WHERE CURRENT OF pl;
SELECT twins('SELECT * FROM @i');
COMMIT;
CALL scans(14);

-- bitmaps that don't remember single rows
SELECT alike('CREATE TABLE @big (id int, k int)');
SELECT alike('INSERT INTO @big SELECT g, (g::bigint * 7919) % 400000 FROM generate_series(1, 400000) g');
SELECT alike('CREATE INDEX @big_k ON @big (k)');
SELECT alike('CREATE INDEX @big_id ON @big (id)');
SELECT alike('INSERT INTO @big SELECT g, (g::bigint * 7919) % 400000 FROM generate_series(400001, 405000) g');
SELECT alike('DELETE FROM @big WHERE id % 11 = 0');
ANALYZE big_heap, big_lake;
SET work_mem = '64kB';
SELECT through('Bitmap Heap Scan', 'SELECT count(*), sum(id) FROM @big WHERE k < 120000');
SELECT through('Bitmap Heap Scan', 'SELECT count(*) FROM @big WHERE k BETWEEN 100000 AND 150000');
SELECT through('BitmapOr', 'SELECT count(*), sum(id) FROM @big WHERE k < 40000 OR id > 360000');
CREATE FUNCTION lossy(tab text) RETURNS bool LANGUAGE plpgsql SET enable_seqscan = off SET enable_indexscan = off SET enable_indexonlyscan = off AS $$
DECLARE
    line text;
    found bool := false;
BEGIN
    FOR line IN EXECUTE format('EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) SELECT sum(id) FROM %s WHERE k < 120000', tab) LOOP
        found := found OR line ~ 'lossy=';
    END LOOP;
    RETURN found;
END $$;
SELECT lossy('big_heap'), lossy('big_lake');
RESET work_mem;
-- with costs that are heap's
SET lake.engine = off;
SELECT through('BitmapAnd', 'SELECT count(*), sum(id) FROM @big WHERE k BETWEEN 10000 AND 14000 AND id BETWEEN 100000 AND 104000');
RESET lake.engine;
SELECT * FROM check_indexes();
-- read and built by other processes
SET debug_parallel_query = on;
SET enable_seqscan = off;
SET enable_bitmapscan = off;
SELECT count(*), sum(k) FROM big_heap WHERE k < 50000;
SELECT count(*), sum(k) FROM big_lake WHERE k < 50000;
SELECT count(*), sum(id) FROM big_heap WHERE k < 50000;
SELECT count(*), sum(id) FROM big_lake WHERE k < 50000;
SET enable_indexscan = off;
SET enable_bitmapscan = on;
SELECT count(*), sum(id) FROM big_heap WHERE k < 50000;
SELECT count(*), sum(id) FROM big_lake WHERE k < 50000;
RESET enable_seqscan;
RESET enable_indexscan;
RESET debug_parallel_query;
SET min_parallel_table_scan_size = 0;
SELECT alike('ALTER TABLE @big SET (parallel_workers = 2)');
REINDEX TABLE big_lake;
REINDEX TABLE CONCURRENTLY big_lake;
RESET min_parallel_table_scan_size;
SELECT through('Index Only Scan', 'SELECT count(*), sum(k) FROM @big WHERE k < 50000');
SELECT through('Index Scan', 'SELECT * FROM @big WHERE id BETWEEN 50000 AND 60000');
SELECT * FROM check_indexes();
DROP TABLE big_heap, big_lake;

-- unique keys
SELECT alike('CREATE TABLE @u (id int PRIMARY KEY, a int, b text, c int, CONSTRAINT @u_ab UNIQUE NULLS NOT DISTINCT (a, b))');
SELECT alike('CREATE UNIQUE INDEX @u_expr ON @u (upper(b)) WHERE c > 0');
SELECT alike('INSERT INTO @u SELECT g, g / 2, ''b'' || g, g % 5 FROM generate_series(1, 200) g');
SELECT alike('INSERT INTO @u VALUES (201, NULL, ''n'', 0), (202, 7, NULL, 0), (203, NULL, NULL, 0)');
CALL freeze_rows('u');
SELECT alike('INSERT INTO @u VALUES (5, 999, ''new'', 0)');
SELECT alike('INSERT INTO @u VALUES (1000, 10, ''b20'', 0)');
SELECT alike('INSERT INTO @u VALUES (1000, NULL, ''n'', 0)');
SELECT alike('INSERT INTO @u VALUES (1000, NULL, NULL, 0)');
SELECT alike('INSERT INTO @u VALUES (1000, 7, NULL, 0)');
SELECT alike('INSERT INTO @u VALUES (1000, -1, ''B21'', 1)');
SELECT alike('INSERT INTO @u VALUES (1000, -1, ''B21'', 0)');
SELECT alike('INSERT INTO @u VALUES (1001, -1, ''B20'', 1)');
SELECT alike('UPDATE @u SET id = 6 WHERE id = 5');
SELECT alike('UPDATE @u SET id = id WHERE id = 5');
SELECT alike('UPDATE @u SET c = 1 WHERE id = 1000');
SELECT alike('UPDATE @u SET id = id + 1 WHERE id = 20');
SELECT alike('UPDATE @u SET id = id + 2000');
SELECT alike('UPDATE @u SET id = id - 2000');
SELECT alike('DELETE FROM @u WHERE id = 7');
SELECT alike('UPDATE @u SET id = 7 WHERE id = 8');
SELECT alike('INSERT INTO @u VALUES (8, -8, ''eight'', 0)');
SELECT alike('INSERT INTO @u VALUES (8, -9, ''eight'', 0)');
SELECT twins('SELECT * FROM @u');
CALL freeze_rows('u');
SELECT alike('INSERT INTO @u VALUES (8, -9, ''eight'', 0)');
SELECT alike('INSERT INTO @u VALUES (7, -9, ''seven'', 0)');
SELECT alike('DELETE FROM @u WHERE id % 3 = 0');
SELECT alike('INSERT INTO @u SELECT g, -g, ''third'' || g, 1 FROM generate_series(3, 60, 3) g');
SELECT alike('INSERT INTO @u SELECT g, -g - 100, ''third'', 0 FROM generate_series(60, 90, 3) g');
CALL merge_rows('u');
SELECT alike('INSERT INTO @u SELECT g, -g - 100, ''third'' || g, 1 FROM generate_series(63, 90, 3) g');
SELECT alike('INSERT INTO @u SELECT g, -g - 100, ''third'' || g, 1 FROM generate_series(90, 96, 3) g');
-- own changes
BEGIN;
SELECT alike('DELETE FROM @u WHERE id = 10');
SELECT alike('INSERT INTO @u VALUES (10, -10, ''ten'', 0)');
SELECT alike('INSERT INTO @u VALUES (10, -11, ''ten'', 0)');
SAVEPOINT s;
SELECT alike('DELETE FROM @u WHERE id = 11');
SELECT alike('INSERT INTO @u VALUES (11, -11, ''eleven'', 0)');
ROLLBACK TO s;
SELECT alike('INSERT INTO @u VALUES (11, -11, ''eleven'', 0)');
SELECT alike('UPDATE @u SET id = 12 WHERE id = 11');
COMMIT;
BEGIN;
SELECT alike('DELETE FROM @u WHERE id = 13');
ROLLBACK;
SELECT alike('INSERT INTO @u VALUES (13, -13, ''thirteen'', 0)');
SELECT twins('SELECT * FROM @u');
-- two tables in one transaction, each with cold rows
SELECT alike('CREATE TABLE @u2 (id int PRIMARY KEY)');
SELECT alike('INSERT INTO @u2 SELECT generate_series(1, 50)');
CALL freeze_rows('u2');
BEGIN;
SELECT alike('INSERT INTO @u VALUES (3001, 3001, ''two'', 0)');
SELECT alike('INSERT INTO @u2 VALUES (51)');
SELECT alike('INSERT INTO @u2 VALUES (50)');
SELECT alike('INSERT INTO @u2 VALUES (52)');
COMMIT;
-- what is loaded into a table with an index stays hot, and is checked
SELECT alike('INSERT INTO @u2 SELECT generate_series(101, 30000)');
SELECT alike('INSERT INTO @u2 SELECT generate_series(30001, 50)');
SELECT alike('INSERT INTO @u2 SELECT generate_series(30000, 30010)');
SELECT hot > 20000 AS hot FROM hot_cold('u2_lake');
COPY u2_lake FROM stdin;
40000
40001
\.
COPY u2_lake FROM stdin;
40002
50
\.
INSERT INTO u2_heap VALUES (40000), (40001);
SELECT twins('SELECT * FROM @u2');
SELECT * FROM check_indexes();

-- ON CONFLICT
SELECT alike('CREATE TABLE @o (id int PRIMARY KEY, k int, v text, CONSTRAINT @o_k UNIQUE (k))');
SELECT alike('CREATE UNIQUE INDEX @o_v ON @o (v) WHERE id > 50');
SELECT alike('INSERT INTO @o SELECT g, g * 10, ''v'' || g FROM generate_series(1, 100) g');
CALL freeze_rows('o');
SELECT alike('INSERT INTO @o VALUES (1, 0, ''x'') ON CONFLICT DO NOTHING');
SELECT alike('INSERT INTO @o VALUES (1000, 10, ''x'') ON CONFLICT DO NOTHING');
SELECT alike('INSERT INTO @o VALUES (1000, 10, ''x'') ON CONFLICT (id) DO NOTHING');
SELECT alike('INSERT INTO @o VALUES (1000, 10, ''x'') ON CONFLICT (k) DO NOTHING');
SELECT alike('INSERT INTO @o VALUES (1, 0, ''x'') ON CONFLICT ON CONSTRAINT @o_k DO NOTHING');
SELECT alike('INSERT INTO @o VALUES (1, 0, ''x'') ON CONFLICT (id) DO UPDATE SET v = excluded.v || @o.v, k = @o.k + 1');
SELECT alike('INSERT INTO @o VALUES (1, 0, ''y'') ON CONFLICT (id) DO UPDATE SET v = excluded.v || @o.v, k = @o.k + 1');
SELECT alike('INSERT INTO @o SELECT g, g, ''s'' || g FROM generate_series(95, 105) g ON CONFLICT (id) DO UPDATE SET v = excluded.v WHERE @o.id % 2 = 0');
SELECT alike('INSERT INTO @o VALUES (0, 70, ''k'') ON CONFLICT ON CONSTRAINT @o_k DO UPDATE SET v = ''by k'', id = 7000');
SELECT alike('INSERT INTO @o VALUES (0, 80, ''k'') ON CONFLICT (k) DO UPDATE SET id = 9');
SELECT alike('INSERT INTO @o VALUES (60, 80, ''k'') ON CONFLICT (k) DO UPDATE SET v = ''no''');
SELECT alike('INSERT INTO @o VALUES (600, 6000, ''v61'') ON CONFLICT (v) WHERE id > 50 DO UPDATE SET v = ''v61 conflict''');
SELECT alike('INSERT INTO @o VALUES (601, 6001, ''v62'') ON CONFLICT (id) DO UPDATE SET v = ''no''');
SELECT alike('INSERT INTO @o VALUES (20, 1, ''a''), (20, 2, ''b'') ON CONFLICT (id) DO UPDATE SET v = excluded.v');
SELECT alike('INSERT INTO @o VALUES (2001, 2001, ''a''), (2001, 2002, ''b'') ON CONFLICT (id) DO UPDATE SET v = excluded.v');
SELECT alike('INSERT INTO @o VALUES (2001, 2001, ''a''), (2001, 2002, ''b''), (21, 3, ''c''), (21, 4, ''d'') ON CONFLICT DO NOTHING');
SELECT alike('INSERT INTO @o VALUES (22, 22, ''a'') ON CONFLICT (id) DO UPDATE SET (k, v) = (SELECT max(k) + 1, min(v) FROM @o)');
SELECT twins('INSERT INTO @o VALUES (23, 0, ''x'') ON CONFLICT (id) DO UPDATE SET v = ''returned'' RETURNING *') AS three_times_the_same;
-- what tells an update from an insertion
SELECT twins('INSERT INTO @o VALUES (25, 0, ''x'') ON CONFLICT (id) DO UPDATE SET v = ''returned too'' RETURNING id, xmax = 0') AS three_times_the_same;
BEGIN;
SELECT alike('DELETE FROM @o WHERE id = 24');
SELECT alike('INSERT INTO @o VALUES (24, 24, ''new 24'') ON CONFLICT (id) DO UPDATE SET v = ''no''');
SELECT alike('INSERT INTO @o VALUES (24, 25, ''newer 24'') ON CONFLICT (id) DO UPDATE SET v = excluded.v');
COMMIT;
SELECT twins('SELECT * FROM @o');
CALL freeze_rows('o');
SELECT alike('INSERT INTO @o SELECT g, -g, ''w'' || g FROM generate_series(1, 300) g ON CONFLICT (id) DO UPDATE SET v = ''w'' || @o.v, k = excluded.k');
SELECT twins('SELECT * FROM @o');
-- MERGE by key
CALL freeze_rows('o');
SELECT alike('MERGE INTO @o USING (SELECT g AS id FROM generate_series(280, 320) g) s ON @o.id = s.id
    WHEN MATCHED AND s.id % 2 = 0 THEN UPDATE SET v = ''merged'' || s.id WHEN MATCHED AND s.id % 3 = 0 THEN DELETE
    WHEN NOT MATCHED BY TARGET THEN INSERT VALUES (s.id, -s.id, ''inserted'' || s.id)');
SELECT alike('MERGE INTO @o USING (VALUES (1), (2)) s (id) ON @o.id = s.id WHEN MATCHED THEN UPDATE SET k = -3');
SELECT alike('MERGE INTO @o USING (VALUES (1), (1)) s (id) ON @o.id = s.id + 1 WHEN MATCHED THEN DELETE');
SELECT twins('SELECT * FROM @o');
SELECT alike('WITH gone AS (DELETE FROM @o WHERE id BETWEEN 10 AND 30 RETURNING *) INSERT INTO @o SELECT * FROM gone ON CONFLICT DO NOTHING');
SELECT twins('SELECT * FROM @o');
SELECT * FROM check_indexes();

-- deferred keys: swapped, violated at the end of a statement and of a transaction
SELECT alike('CREATE TABLE @s (id int CONSTRAINT @s_id UNIQUE DEFERRABLE INITIALLY DEFERRED, k int CONSTRAINT @s_k UNIQUE DEFERRABLE, v text)');
SELECT alike('INSERT INTO @s SELECT g, g, ''v'' || g FROM generate_series(1, 20) g');
CALL freeze_rows('s');
BEGIN;
SELECT alike('UPDATE @s SET id = 2 WHERE v = ''v1''');
SELECT alike('UPDATE @s SET id = 1 WHERE v = ''v2''');
SELECT alike('SET CONSTRAINTS @s_id IMMEDIATE');
COMMIT;
BEGIN;
SELECT alike('UPDATE @s SET id = 4 WHERE v = ''v3''');
SELECT alike('SET CONSTRAINTS @s_id IMMEDIATE');
SELECT alike('DELETE FROM @s WHERE v = ''v4''');
SELECT alike('SET CONSTRAINTS @s_id IMMEDIATE');
COMMIT;
SELECT alike('UPDATE @s SET k = k + 1');
SELECT alike('UPDATE @s SET k = 10 WHERE v = ''v5''');
BEGIN;
INSERT INTO s_heap VALUES (7, 100, 'dup');
COMMIT;
BEGIN;
INSERT INTO s_lake VALUES (7, 100, 'dup');
COMMIT;
BEGIN;
SELECT alike('INSERT INTO @s VALUES (8, 100, ''dup'')');
SELECT alike('UPDATE @s SET id = 108 WHERE v = ''v8''');
COMMIT;
SELECT alike('INSERT INTO @s VALUES (8, 100, ''dup'') ON CONFLICT (id) DO NOTHING');
SELECT twins('SELECT * FROM @s');

-- exclusion constraints
SELECT alike('CREATE TABLE @e (room int, during int4range, v text, CONSTRAINT @e_x EXCLUDE USING gist (room WITH =, during WITH &&) WHERE (v <> ''free''))');
SELECT alike('INSERT INTO @e SELECT g % 4, int4range(g * 10, g * 10 + 8), ''v'' || g FROM generate_series(1, 100) g');
CALL freeze_rows('e');
SELECT alike('INSERT INTO @e VALUES (1, int4range(10, 12), ''no'')');
SELECT alike('INSERT INTO @e VALUES (1, int4range(10, 12), ''free'')');
SELECT alike('INSERT INTO @e VALUES (1, int4range(18, 20), ''gap'')');
SELECT alike('INSERT INTO @e VALUES (1, int4range(10, 12), ''no'') ON CONFLICT DO NOTHING');
SELECT alike('INSERT INTO @e VALUES (1, int4range(10, 12), ''no'') ON CONFLICT ON CONSTRAINT @e_x DO NOTHING');
SELECT alike('UPDATE @e SET during = int4range(50, 52) WHERE v = ''v1''');
SELECT alike('UPDATE @e SET during = int4range(51, 53) WHERE v = ''v5''');
SELECT alike('UPDATE @e SET v = ''taken'' WHERE v = ''free''');
SELECT alike('DELETE FROM @e WHERE v = ''v1''');
SELECT alike('UPDATE @e SET v = ''taken'' WHERE v = ''free''');
SELECT alike('ALTER TABLE @e DROP CONSTRAINT @e_x');
SELECT alike('ALTER TABLE @e ADD CONSTRAINT @e_y EXCLUDE USING gist (during WITH &&)');
SELECT alike('DELETE FROM @e WHERE v = ''taken''');
CALL freeze_rows('e');
SELECT alike('ALTER TABLE @e ADD CONSTRAINT @e_y EXCLUDE USING gist (during WITH &&) DEFERRABLE INITIALLY DEFERRED');
BEGIN;
SELECT alike('INSERT INTO @e VALUES (9, int4range(200, 300), ''later'')');
SELECT alike('SET CONSTRAINTS @e_y IMMEDIATE');
SELECT alike('DELETE FROM @e WHERE during && int4range(200, 300) AND room <> 9');
SELECT alike('SET CONSTRAINTS @e_y IMMEDIATE');
COMMIT;
SELECT twins('SELECT * FROM @e');

-- constraints that come after the rows
SELECT alike('CREATE TABLE @l (id int, k int, r int4range)');
SELECT alike('INSERT INTO @l SELECT g, g % 90, int4range(g % 90 * 10, g % 90 * 10 + 5) FROM generate_series(1, 100) g');
SELECT * FROM hot_cold('l_lake');
SELECT alike('ALTER TABLE @l ADD CONSTRAINT @l_k UNIQUE (k)');
SELECT alike('CREATE UNIQUE INDEX @l_k ON @l (k)');
SELECT alike('ALTER TABLE @l ADD PRIMARY KEY (k)');
SELECT alike('ALTER TABLE @l ADD CONSTRAINT @l_r EXCLUDE USING gist (r WITH &&)');
CREATE UNIQUE INDEX CONCURRENTLY l_c_lake ON l_lake (k);
SELECT indisvalid, indisready FROM pg_index WHERE indexrelid = 'l_c_lake'::regclass;
SELECT alike('INSERT INTO @l VALUES (101, 200, int4range(2000, 2005))');
DROP INDEX l_c_lake;
SELECT alike('ALTER TABLE @l ADD CONSTRAINT @l_pk PRIMARY KEY (id)');
SELECT alike('DELETE FROM @l WHERE id > 90');
SELECT alike('CREATE UNIQUE INDEX @l_k ON @l (k)');
CREATE UNIQUE INDEX CONCURRENTLY l_c_lake ON l_lake (k DESC);
SELECT indisvalid, indisready FROM pg_index WHERE indexrelid = 'l_c_lake'::regclass;
SELECT alike('ALTER TABLE @l ADD CONSTRAINT @l_u UNIQUE USING INDEX @l_k');
SELECT alike('ALTER TABLE @l ADD CONSTRAINT @l_r EXCLUDE USING gist (r WITH &&)');
SELECT alike('INSERT INTO @l VALUES (90, 91, int4range(910, 912))');
SELECT alike('INSERT INTO @l VALUES (100, 89, int4range(910, 912))');
SELECT alike('INSERT INTO @l VALUES (100, 91, int4range(894, 912))');
SELECT alike('ALTER TABLE @l REPLICA IDENTITY USING INDEX @l_pk');
SELECT alike('ALTER TABLE @l DROP CONSTRAINT @l_pk');
SELECT twins('SELECT * FROM @l');
REINDEX TABLE l_lake;
SELECT * FROM check_indexes();

-- foreign keys: parent and child are cold
SELECT alike('CREATE TABLE @p (id int PRIMARY KEY, k int UNIQUE, v text)');
SELECT alike('INSERT INTO @p SELECT g, g * 10, ''p'' || g FROM generate_series(1, 50) g');
SELECT alike('CREATE TABLE @c (id int PRIMARY KEY, p int CONSTRAINT @c_p REFERENCES @p, k int CONSTRAINT @c_k REFERENCES @p (k) ON DELETE CASCADE ON UPDATE CASCADE)');
SELECT alike('INSERT INTO @c SELECT g, g % 20 + 1, g % 30 * 10 + 10 FROM generate_series(1, 100) g');
SELECT alike('CREATE INDEX @c_p_index ON @c (p)');
CALL freeze_rows('p', 'c');
SELECT alike('INSERT INTO @c VALUES (101, 50, 500)');
SELECT alike('INSERT INTO @c VALUES (102, 51, 500)');
SELECT alike('INSERT INTO @c VALUES (102, NULL, 501)');
SELECT alike('UPDATE @c SET p = 99 WHERE id = 5');
SELECT alike('UPDATE @c SET p = 49 WHERE id = 5');
SELECT alike('DELETE FROM @p WHERE id = 1');
SELECT alike('DELETE FROM @p WHERE id = 49');
SELECT alike('DELETE FROM @p WHERE id = 40');
SELECT alike('UPDATE @p SET id = 41 WHERE id = 42');
SELECT alike('UPDATE @p SET id = 142 WHERE id = 42');
SELECT alike('UPDATE @p SET id = 102 WHERE id = 2');
SELECT alike('UPDATE @p SET v = ''changed'' WHERE id = 2');
SELECT alike('UPDATE @p SET k = k + 1 WHERE id = 25');
SELECT alike('INSERT INTO @c VALUES (103, 2, 251)');
SELECT alike('INSERT INTO @c VALUES (104, 2, 250)');
SELECT alike('DELETE FROM @p WHERE id = 25');
SELECT twins('SELECT * FROM @c');
SELECT alike('ALTER TABLE @c DROP CONSTRAINT @c_p, ADD CONSTRAINT @c_p FOREIGN KEY (p) REFERENCES @p ON DELETE SET NULL ON UPDATE SET DEFAULT');
SELECT alike('DELETE FROM @p WHERE id = 3');
SELECT alike('UPDATE @p SET id = 104 WHERE id = 4');
SELECT twins('SELECT * FROM @c');
SELECT alike('ALTER TABLE @c DROP CONSTRAINT @c_p, ADD CONSTRAINT @c_p FOREIGN KEY (p) REFERENCES @p ON DELETE RESTRICT ON UPDATE RESTRICT');
SELECT alike('DELETE FROM @p WHERE id = 5');
SELECT alike('UPDATE @p SET id = 105 WHERE id = 5');
CALL freeze_rows('p', 'c');
SELECT alike('DELETE FROM @p WHERE id = 5');
SELECT alike('ALTER TABLE @c DROP CONSTRAINT @c_p, ADD CONSTRAINT @c_p FOREIGN KEY (p) REFERENCES @p DEFERRABLE INITIALLY DEFERRED');
BEGIN;
SELECT alike('DELETE FROM @p WHERE id = 5');
SELECT alike('INSERT INTO @c VALUES (105, 1234, NULL)');
SELECT alike('SET CONSTRAINTS @c_p IMMEDIATE');
SELECT alike('INSERT INTO @p VALUES (1234, 12340, ''late''), (5, 50, ''again'')');
SELECT alike('SET CONSTRAINTS @c_p IMMEDIATE');
COMMIT;
SELECT alike('ALTER TABLE @c DROP CONSTRAINT @c_p');
SELECT alike('UPDATE @c SET p = 4321 WHERE id = 50');
SELECT alike('ALTER TABLE @c ADD CONSTRAINT @c_p FOREIGN KEY (p) REFERENCES @p');
SELECT alike('ALTER TABLE @c ADD CONSTRAINT @c_p FOREIGN KEY (p) REFERENCES @p NOT VALID');
SELECT alike('UPDATE @c SET p = 1 WHERE id = 50');
SELECT alike('ALTER TABLE @c VALIDATE CONSTRAINT @c_p');
SELECT alike('TRUNCATE @p');
BEGIN;
SELECT alike('TRUNCATE @p, @c');
SELECT twins('SELECT * FROM @c');
ROLLBACK;
SELECT twins('SELECT * FROM @c');
-- a table that refers to itself
SELECT alike('CREATE TABLE @tree (id int PRIMARY KEY, up int REFERENCES @tree ON DELETE CASCADE ON UPDATE CASCADE)');
SELECT alike('INSERT INTO @tree SELECT g, nullif(g / 2, 0) FROM generate_series(1, 63) g');
CALL freeze_rows('tree');
SELECT alike('DELETE FROM @tree WHERE id = 3');
SELECT alike('UPDATE @tree SET id = 200 WHERE id = 2');
SELECT alike('INSERT INTO @tree VALUES (300, 3)');
SELECT alike('INSERT INTO @tree VALUES (300, 300)');
SELECT twins('SELECT * FROM @tree');
-- from and to a heap table
CREATE TABLE child (id int, p int REFERENCES p_lake);
INSERT INTO child VALUES (1, 1), (2, 2);
INSERT INTO child VALUES (3, 777);
DELETE FROM p_lake WHERE id = 1;
DROP TABLE child;
SELECT * FROM check_indexes();

-- a flush that is rolled back leaves entries that lead nowhere; a merge removes them
SELECT alike('CREATE TABLE @b (id int PRIMARY KEY, a int[], v text)');
SELECT alike('CREATE INDEX @b_a ON @b USING gin (a)');
SELECT alike('INSERT INTO @b SELECT g, ARRAY[g, g % 10], ''v'' || g FROM generate_series(1, 100) g');
CALL settle();
BEGIN;
SELECT lake.flush('b_lake');
SELECT * FROM hot_cold('b_lake');
SELECT through('Index Scan', 'SELECT * FROM @b WHERE id BETWEEN 20 AND 40');
SELECT alike('INSERT INTO @b VALUES (50, NULL, NULL)');
SELECT alike('INSERT INTO @b VALUES (50, NULL, NULL) ON CONFLICT (id) DO UPDATE SET v = ''upsert''');
SELECT alike('UPDATE @b SET v = ''cold'' WHERE id = 20');
ROLLBACK;
SELECT * FROM hot_cold('b_lake');
SELECT alike('INSERT INTO @b VALUES (50, NULL, NULL)');
SELECT through('Index Scan', 'SELECT * FROM @b WHERE id BETWEEN 20 AND 60');
SELECT through('Bitmap Heap Scan', 'SELECT * FROM @b WHERE a @> ARRAY[7]');
SELECT alike('DELETE FROM @b WHERE id = 50');
SELECT alike('INSERT INTO @b VALUES (50, ARRAY[7], ''new'')');
CALL settle();
BEGIN;
SELECT lake.flush('b_lake') > 0 AS moved;
CREATE UNIQUE INDEX ON b_lake (v);
INSERT INTO b_lake VALUES (1001, NULL, 'v7');
ROLLBACK;
CALL settle();
BEGIN;
SAVEPOINT s;
SELECT lake.flush('b_lake') > 0 AS moved;
ROLLBACK TO s;
SELECT lake.flush('b_lake') > 0 AS moved;
CREATE UNIQUE INDEX b_v_lake ON b_lake (v);
COMMIT;
SELECT alike('DELETE FROM @b WHERE id % 7 = 0');
CALL merge_rows('b');
SELECT through('Index Scan', 'SELECT * FROM @b WHERE id BETWEEN 20 AND 60');
SELECT through('Bitmap Heap Scan', 'SELECT * FROM @b WHERE a @> ARRAY[7]');
SELECT alike('INSERT INTO @b VALUES (50, NULL, NULL)');
SELECT alike('INSERT INTO @b VALUES (49, NULL, NULL)');
SELECT twins('SELECT * FROM @b');
SELECT * FROM check_indexes();
-- a merge that is rolled back
SELECT alike('DELETE FROM @b WHERE id BETWEEN 30 AND 35');
CALL settle();
BEGIN;
SELECT lake.merge('b_lake') > 0 AS merged;
ROLLBACK;
SELECT alike('INSERT INTO @b VALUES (30, NULL, NULL)');
SELECT through('Index Scan', 'SELECT * FROM @b WHERE id BETWEEN 20 AND 60');
CALL merge_rows('b');
SELECT through('Index Scan', 'SELECT * FROM @b WHERE id BETWEEN 20 AND 60');
-- all rows go, and their file
SELECT alike('DELETE FROM @b');
CALL merge_rows('b');
SELECT alike('INSERT INTO @b SELECT g, ARRAY[g], ''v'' || g FROM generate_series(1, 100) g');
CALL freeze_rows('b');
SELECT through('Index Scan', 'SELECT * FROM @b WHERE id BETWEEN 20 AND 60');
-- truncated
BEGIN;
SELECT alike('TRUNCATE @b');
SELECT alike('INSERT INTO @b VALUES (20, NULL, NULL)');
SELECT alike('INSERT INTO @b VALUES (20, NULL, NULL)');
ROLLBACK;
SELECT alike('INSERT INTO @b VALUES (20, NULL, NULL)');
SELECT alike('TRUNCATE @b');
SELECT alike('INSERT INTO @b VALUES (20, NULL, NULL)');
SELECT through('Index Scan', 'SELECT * FROM @b WHERE id BETWEEN 20 AND 60');
SELECT * FROM check_indexes();

-- partitions
SELECT alike('CREATE TABLE @m (id int, part int, v text, PRIMARY KEY (id, part)) PARTITION BY LIST (part)');
SELECT alike('CREATE TABLE @m1 PARTITION OF @m FOR VALUES IN (1)');
SELECT alike('CREATE TABLE @m2 PARTITION OF @m FOR VALUES IN (2)');
SELECT alike('CREATE TABLE @m3 (id int NOT NULL, part int NOT NULL, v text)');
SELECT alike('INSERT INTO @m SELECT g, g % 2 + 1, ''v'' || g FROM generate_series(1, 100) g');
SELECT alike('INSERT INTO @m3 SELECT g, 3, ''v'' || g FROM generate_series(1, 100) g');
CALL freeze_rows('m1', 'm2');
SELECT * FROM hot_cold('m3_lake');
SELECT alike('ALTER TABLE @m ATTACH PARTITION @m3 FOR VALUES IN (3)');
SELECT alike('CREATE INDEX @m_v ON @m (v)');
SELECT alike('INSERT INTO @m VALUES (5, 2, ''dup'')');
SELECT alike('INSERT INTO @m VALUES (5, 3, ''dup'') ON CONFLICT (id, part) DO UPDATE SET v = ''upsert''');
SELECT alike('UPDATE @m SET part = 2 WHERE id = 6 AND part = 1');
SELECT alike('UPDATE @m SET part = 1 WHERE id = 7 AND part = 2');
SELECT alike('UPDATE @m SET part = 3 WHERE id = 8');
SELECT alike('DELETE FROM @m WHERE v = ''v9''');
SELECT through('Index Scan', 'SELECT * FROM @m WHERE id BETWEEN 5 AND 50');
SELECT through('Index Scan', 'SELECT * FROM @m WHERE v = ''v10''');
SELECT through('Index Only Scan', 'SELECT id, part FROM @m WHERE id < 50 ORDER BY id, part', true);
SELECT alike('CREATE TABLE @mc (id int, part int, CONSTRAINT @mc_fk FOREIGN KEY (id, part) REFERENCES @m)');
SELECT alike('INSERT INTO @mc VALUES (10, 1)');
SELECT alike('INSERT INTO @mc VALUES (9, 3)');
SELECT alike('DELETE FROM @m WHERE id = 10');
SELECT alike('ALTER TABLE @m DETACH PARTITION @m2');
SELECT alike('INSERT INTO @m2 VALUES (11, 2, ''after'')');
SELECT twins('SELECT * FROM @m');

-- a materialized view
SELECT alike('CREATE MATERIALIZED VIEW @v AS SELECT id, v FROM @p');
SELECT alike('CREATE UNIQUE INDEX @v_id ON @v (id)');
SELECT alike('DELETE FROM @p WHERE id > 40 AND id < 49');
SELECT alike('UPDATE @p SET v = ''fresh'' WHERE id % 5 = 0');
REFRESH MATERIALIZED VIEW CONCURRENTLY v_heap;
REFRESH MATERIALIZED VIEW CONCURRENTLY v_lake;
SELECT through('Index Scan', 'SELECT * FROM @v WHERE id > 10');
CALL settle();
SELECT lake.flush('v_lake') > 0 AS moved;
SELECT alike('UPDATE @p SET v = ''fresher'' WHERE id % 7 = 0');
REFRESH MATERIALIZED VIEW CONCURRENTLY v_heap;
REFRESH MATERIALIZED VIEW CONCURRENTLY v_lake;
SELECT through('Index Scan', 'SELECT * FROM @v WHERE id > 10');
REFRESH MATERIALIZED VIEW v_heap;
REFRESH MATERIALIZED VIEW v_lake;
SELECT through('Index Scan', 'SELECT * FROM @v WHERE id > 10');

-- under a transaction's own snapshot
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT through('Index Scan', 'SELECT * FROM @u WHERE id BETWEEN 20 AND 60');
SELECT alike('INSERT INTO @u VALUES (20, 2020, ''serializable'', 0)');
SELECT alike('UPDATE @u SET id = 5020 WHERE id = 20');
SELECT alike('INSERT INTO @u VALUES (20, 2020, ''serializable'', 0)');
SELECT alike('INSERT INTO @u VALUES (22, 2022, ''serializable'', 0) ON CONFLICT (id) DO UPDATE SET c = 7');
SELECT alike('DELETE FROM @u WHERE id = 23');
SELECT through('Bitmap Heap Scan', 'SELECT * FROM @u WHERE id BETWEEN 20 AND 60');
COMMIT;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT alike('DELETE FROM @p WHERE id = 20');
SELECT alike('INSERT INTO @c VALUES (200, 20, NULL)');
SELECT alike('INSERT INTO @c VALUES (200, 21, NULL)');
COMMIT;
SELECT twins('SELECT * FROM @u');
-- two-phase commit
BEGIN;
SELECT alike('DELETE FROM @u WHERE id = 25');
SELECT alike('INSERT INTO @u VALUES (25, 2525, ''prepared'', 0)');
PREPARE TRANSACTION 'lake_index';
COMMIT PREPARED 'lake_index';
SELECT alike('INSERT INTO @u VALUES (25, 2526, ''prepared'', 0)');
SELECT twins('SELECT * FROM @u');
-- another access method, and back
SELECT alike('ALTER TABLE @o SET ACCESS METHOD heap');
SELECT through('Index Scan', 'SELECT * FROM @o WHERE id > 10');
ALTER TABLE o_lake SET ACCESS METHOD iceberg;
SELECT through('Index Scan', 'SELECT * FROM @o WHERE id > 10');
SELECT alike('INSERT INTO @o VALUES (11, 1111111, ''no'')');
SELECT alike('ALTER TABLE @o ALTER COLUMN k TYPE text');
SELECT alike('INSERT INTO @o VALUES (11, ''x'', ''no'')');
SELECT * FROM check_indexes();
-- everything cold and merged
CALL freeze_rows('i', 'u', 'o', 's', 'e', 'l', 'p', 'c', 'tree', 'b', 'm1');
CALL scans(15);
SELECT twins('SELECT * FROM @' || name) FROM unnest(ARRAY['i', 'u', 'u2', 'o', 's', 'e', 'l', 'p', 'c', 'tree', 'b', 'm', 'mc']) AS name;
SELECT * FROM check_indexes();

-- ranges of blocks: a BRIN index knows hot rows, and scans through it look at all cold ones
CREATE TABLE brin_heap (id int, t text);
CREATE TABLE brin_lake (id int, t text) USING iceberg;
INSERT INTO brin_heap SELECT g, 't' || g FROM generate_series(1, 1000) g;
INSERT INTO brin_lake SELECT g, 't' || g FROM generate_series(1, 1000) g;
SELECT alike('CREATE INDEX ON @brin USING brin (id) WITH (pages_per_range = 1)');
SELECT alike('INSERT INTO @brin SELECT g, ''new'' FROM generate_series(991, 1090) g');
SELECT * FROM hot_cold('brin_lake');
SET lake.engine = off;
SELECT through('Bitmap Heap Scan', 'SELECT * FROM @brin WHERE id BETWEEN 985 AND 1005');
SELECT alike('UPDATE @brin SET t = ''changed'' WHERE id IN (7, 1007)');
SELECT alike('DELETE FROM @brin WHERE id IN (8, 1008)');
SELECT through('Bitmap Heap Scan', 'SELECT * FROM @brin WHERE id < 20 OR id > 1000');
RESET lake.engine;
SELECT twins('SELECT * FROM @brin WHERE id BETWEEN 5 AND 15');
-- what comes now stays hot
SELECT lake.flush('brin_lake');

SET client_min_messages = warning;
DROP TABLE i_heap, i_lake, u_heap, u_lake, u2_heap, u2_lake, o_heap, o_lake, s_heap, s_lake, e_heap, e_lake, l_heap, l_lake,
    p_heap, p_lake, c_heap, c_lake, tree_heap, tree_lake, b_heap, b_lake, m_heap, m_lake, m2_heap, m2_lake, mc_heap, mc_lake, brin_heap, brin_lake CASCADE;
DROP FUNCTION outcome, alike, through, check_indexes, moves, lossy;
DROP PROCEDURE freeze_rows, merge_rows, scans;
DROP EXTENSION amcheck, btree_gist;
