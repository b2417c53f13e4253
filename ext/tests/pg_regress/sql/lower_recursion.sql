-- Purpose: WITH RECURSIVE in the engine gives heap's rows: how many rows differ, or why the engine refused. What isn't worth it, or
-- could be told from heap's, stays in Postgres.
CREATE FUNCTION differing(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    detail text;
    n bigint;
BEGIN
    DROP TABLE IF EXISTS of_heap, of_lake;
    EXECUTE format('CREATE TEMP TABLE of_heap AS SELECT x::text AS r FROM (%s) x', regexp_replace(query, '@(\w+)', '\1_heap', 'g'));
    PERFORM set_config('lake.engine', 'force', true);
    EXECUTE format('CREATE TEMP TABLE of_lake AS SELECT x::text AS r FROM (%s) x', regexp_replace(query, '@(\w+)', '\1_lake', 'g'));
    PERFORM set_config('lake.engine', 'on', true);
    SELECT count(*) INTO n FROM
        ((SELECT r FROM of_heap EXCEPT ALL SELECT r FROM of_lake)
         UNION ALL (SELECT r FROM of_lake EXCEPT ALL SELECT r FROM of_heap)) x;
    RETURN CASE WHEN EXISTS (SELECT FROM of_heap) THEN n::text ELSE n || ' of none' END;
EXCEPTION WHEN feature_not_supported THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
    PERFORM set_config('lake.engine', 'on', true);
    RETURN 'refused: ' || detail;
END $$;
CREATE FUNCTION refused_for(query text, reason text) RETURNS bool LANGUAGE plpgsql AS $$
DECLARE
    detail text;
BEGIN
    PERFORM set_config('lake.engine', 'force', true);
    EXECUTE regexp_replace(query, '@(\w+)', '\1_lake', 'g');
    RETURN false;
EXCEPTION WHEN feature_not_supported THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
    RETURN strpos(detail, reason) > 0;
END $$;
-- whose the steps are, when the engine may choose
CREATE FUNCTION steps_are(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    line text;
    answer text := 'Postgres';
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || query LOOP
        IF line ~ 'WorkTable Scan: columns' THEN
            answer := 'the engine''s';
        END IF;
    END LOOP;
    RETURN answer;
END $$;
SET client_min_messages = warning;
SET lake.bulk_rows = 10;
-- a tree, and circles of three and of one
CREATE TABLE g_heap (src int, dst int, w numeric(8,2), t text COLLATE "C", next_t text COLLATE "C", u text COLLATE "POSIX", f float8, c char(4));
INSERT INTO g_heap
SELECT g / 3, g, g % 100 / 4.0, 't' || g / 3, 't' || g, 'u' || g / 3, CASE g % 5 WHEN 0 THEN float8 'NaN' WHEN 1 THEN '-0' WHEN 2 THEN 0 END, 'c' || g % 10
FROM generate_series(1, 5000) g;
CREATE TABLE g_lake (LIKE g_heap) USING iceberg;
INSERT INTO g_lake SELECT * FROM g_heap WHERE dst <= 4000;
SET lake.bulk_rows = -1;
INSERT INTO g_lake SELECT * FROM g_heap WHERE dst > 4000;
INSERT INTO g_heap (src, dst, t, next_t) VALUES
    (10001, 10002, 'x', 'y'), (10002, 10003, 'y', 'z'), (10003, 10001, 'z', 'x'), (10004, 10004, 'o', 'o'), (10001, NULL, 'x', NULL);
INSERT INTO g_lake SELECT * FROM g_heap WHERE src > 10000;
CREATE TABLE n_heap (id int, name text COLLATE "C");
INSERT INTO n_heap SELECT g, 'name ' || g FROM generate_series(1, 100) g;
CREATE VIEW n_lake AS SELECT * FROM n_heap;
ANALYZE g_heap, g_lake, n_heap;

-- what is reached, also in circles
SELECT differing('WITH RECURSIVE r AS (SELECT 1 AS id UNION SELECT e.dst FROM r JOIN @g e ON e.src = r.id) SELECT * FROM r');
SELECT differing('WITH RECURSIVE r AS (SELECT dst AS id FROM @g WHERE src >= 10001 UNION SELECT e.dst FROM @g e JOIN r ON e.src = r.id) SELECT * FROM r');
SELECT differing('WITH RECURSIVE r AS (SELECT src, dst FROM @g WHERE src > 10000 UNION SELECT r.src, e.dst FROM @g e, r WHERE e.src = r.dst) SELECT * FROM r');
SELECT differing('WITH RECURSIVE r AS (SELECT t, next_t FROM @g WHERE src IN (7, 10001) UNION SELECT r.t, e.next_t FROM r JOIN @g e ON e.t = r.next_t) SELECT * FROM r');
SELECT differing('WITH RECURSIVE r AS (SELECT src, u FROM @g WHERE src = 3 UNION SELECT e.dst, e.u FROM r JOIN @g e ON e.src = r.src) SELECT * FROM r');
SELECT differing('WITH RECURSIVE r AS (SELECT dst, c FROM @g WHERE src = 2 UNION SELECT e.dst, e.c FROM r JOIN @g e ON e.src = r.dst) SELECT * FROM r');
SELECT differing('WITH RECURSIVE r AS (SELECT dst, w FROM @g WHERE src = 2 UNION SELECT e.dst, e.w FROM r JOIN @g e ON e.src = r.dst) SELECT * FROM r');
-- to some depth
SELECT differing('WITH RECURSIVE r AS (SELECT dst AS id, 1 AS depth FROM @g WHERE src = 10001 UNION ALL SELECT e.dst, r.depth + 1 FROM r JOIN @g e ON e.src = r.id WHERE r.depth < 9) SELECT * FROM r');
SELECT differing('WITH RECURSIVE r AS (SELECT src, dst, 0 AS depth FROM @g WHERE src % 500 = 1 UNION ALL SELECT r.src, e.dst, depth + 1 FROM @g e JOIN r ON e.src = r.dst WHERE depth < 3) SELECT * FROM r');
SELECT differing('WITH RECURSIVE r AS (SELECT 1 AS id, 0 AS depth UNION ALL SELECT r.id + e.dst, depth + 1 FROM r JOIN @g e ON e.dst < 4 WHERE depth < 3) SELECT * FROM r');
SELECT differing('WITH RECURSIVE r AS (SELECT dst AS id, 1 AS depth FROM @g WHERE src = 10001 UNION ALL (SELECT e.dst, r.depth + 1 FROM r JOIN @g e ON e.src >= r.id WHERE r.depth < 9 ORDER BY e.dst DESC NULLS LAST LIMIT 2)) SELECT * FROM r');
SELECT differing('WITH RECURSIVE r AS (SELECT dst AS id FROM @g WHERE src = 1 UNION ALL SELECT r.id * 3 FROM r WHERE EXISTS (SELECT FROM @g e WHERE e.src = r.id)) SELECT * FROM r');
-- rows of other tables are fed once, and are there in each step
SELECT differing('WITH RECURSIVE r AS (SELECT 1 AS id, NULL::text COLLATE "C" AS name UNION SELECT e.dst, n.name FROM r JOIN @g e ON e.src = r.id JOIN @n n ON n.id = e.dst) SELECT * FROM r');
SELECT differing('WITH RECURSIVE r AS (SELECT id FROM @n WHERE id < 4 UNION ALL SELECT e.dst FROM r JOIN @g e ON e.src = r.id) SELECT * FROM r');
SELECT twins('WITH RECURSIVE r AS (SELECT dst AS id FROM @g WHERE src = 0 UNION ALL SELECT e.dst FROM r JOIN @g e ON e.src = r.id WHERE e.w < (SELECT avg(w) FROM @g)) SELECT * FROM r');
SELECT twins('SELECT n.id, (WITH RECURSIVE r AS (SELECT dst AS id FROM @g WHERE src = n.id UNION ALL SELECT e.dst FROM r JOIN @g e ON e.src = r.id) SELECT count(*) FROM r) FROM @n n WHERE n.id < 6');
SELECT twins('WITH RECURSIVE r AS (SELECT dst AS id FROM @g WHERE src = 40 UNION ALL SELECT e.dst FROM r JOIN @g e ON e.src = r.id) SELECT n.id, (SELECT count(*) FROM r WHERE r.id % n.id = 0) FROM @n n WHERE n.id < 6');
-- what is done with the rows
SELECT differing('WITH RECURSIVE r AS (SELECT dst AS id, 0 AS depth FROM @g WHERE src = 0 UNION ALL SELECT e.dst, r.depth + 1 FROM r JOIN @g e ON e.src = r.id) SELECT depth, count(*), min(id), max(id) FROM r GROUP BY depth');
SELECT differing('WITH RECURSIVE r AS (SELECT dst AS id FROM @g WHERE src = 5 UNION ALL SELECT e.dst FROM r JOIN @g e ON e.src = r.id) SELECT r.id, e.w FROM r JOIN @g e ON e.dst = r.id WHERE e.w > 20');
SELECT differing('WITH RECURSIVE r AS (SELECT dst AS id FROM @g WHERE src = 5 UNION ALL SELECT e.dst FROM r JOIN @g e ON e.src = r.id) SELECT id FROM r WHERE id % 7 = 3 ORDER BY id DESC LIMIT 20');
SELECT differing('WITH RECURSIVE r AS (SELECT dst AS id FROM @g WHERE src = 5 UNION ALL SELECT e.dst FROM r JOIN @g e ON e.src = r.id) SELECT a.id, b.id AS other FROM r a JOIN r b ON a.id = b.id * 3');
-- no beginning, and no step
SELECT differing('WITH RECURSIVE r AS (SELECT dst AS id FROM @g WHERE src = -1 UNION ALL SELECT e.dst FROM r JOIN @g e ON e.src = r.id) SELECT * FROM r');
SELECT differing('WITH RECURSIVE r AS (SELECT 1 AS id WHERE false UNION SELECT e.dst FROM r JOIN @g e ON e.src = r.id) SELECT * FROM r');
SELECT differing('WITH RECURSIVE r AS (SELECT dst AS id FROM @g WHERE src = 4900 / 3 UNION ALL SELECT e.dst FROM r JOIN @g e ON e.src = r.id) SELECT * FROM r');
-- there is a first step in any case: what counts rows gives one over none
SELECT differing('WITH RECURSIVE r AS (SELECT dst AS id FROM @g WHERE src = -1 UNION ALL SELECT e.dst FROM (SELECT count(*) AS n FROM (SELECT id FROM r) z) x JOIN @g e ON e.src = x.n WHERE x.n < 1) SELECT * FROM r');
SELECT differing('WITH RECURSIVE r AS (SELECT dst AS id FROM @g WHERE src = 0 UNION ALL SELECT e.dst FROM (SELECT count(*) AS n FROM (SELECT id FROM r) z) x JOIN @g e ON e.src = x.n WHERE x.n < 3) SELECT * FROM r');
-- without end, in the order of the steps
SELECT differing('WITH RECURSIVE r AS (SELECT dst AS id FROM @g WHERE src = 10004 UNION ALL SELECT e.dst FROM r JOIN @g e ON e.src = r.id) SELECT id FROM r LIMIT 10');
SELECT differing('WITH RECURSIVE r AS (SELECT src AS id FROM @g WHERE src = 10002 UNION ALL SELECT e.dst FROM r JOIN @g e ON e.src = r.id WHERE e.dst IS NOT NULL) SELECT id FROM r WHERE id <> 10003 LIMIT 7');
SELECT differing('WITH RECURSIVE r AS (SELECT src AS id FROM @g WHERE src = 10002 UNION ALL SELECT e.dst FROM r JOIN @g e ON e.src = r.id WHERE e.dst IS NOT NULL) SELECT count(*), sum(id) FROM (SELECT id FROM r LIMIT 10) x');
SET statement_timeout = '1min';
SELECT twins('WITH RECURSIVE r AS (SELECT src AS id FROM @g WHERE src = 10002 UNION ALL SELECT e.dst FROM r JOIN @g e ON e.src = r.id WHERE e.dst IS NOT NULL) SELECT count(*) FROM @n n WHERE EXISTS (SELECT FROM r WHERE r.id > n.id)');
RESET statement_timeout;
SET lake.engine = force;
WITH RECURSIVE r AS (SELECT src AS id FROM g_lake WHERE src = 10002 UNION ALL SELECT e.dst FROM r JOIN g_lake e ON e.src = r.id WHERE e.dst IS NOT NULL) SELECT id FROM r LIMIT 5;
BEGIN;
DECLARE c NO SCROLL CURSOR FOR WITH RECURSIVE r AS (SELECT src AS id FROM g_lake WHERE src = 10002 UNION ALL SELECT e.dst FROM r JOIN g_lake e ON e.src = r.id WHERE e.dst IS NOT NULL) SELECT id FROM r;
FETCH 2 FROM c;
FETCH 2 FROM c;
COMMIT;
-- nobody may want what the engine would have to compute first
BEGIN;
DECLARE c NO SCROLL CURSOR FOR WITH RECURSIVE r AS (SELECT src AS id FROM g_lake WHERE src = 10002 UNION ALL SELECT e.dst FROM r JOIN g_lake e ON e.src = r.id WHERE e.dst IS NOT NULL) SELECT r.id, e.w FROM r JOIN g_lake e ON e.src = r.id;
ROLLBACK;
RESET lake.engine;
-- errors
SELECT twins('WITH RECURSIVE r AS (SELECT dst AS id, 2000000000 AS n FROM @g WHERE src = 10004 UNION ALL SELECT e.dst, r.n + 100000000 FROM r JOIN @g e ON e.src = r.id) SELECT count(*) FROM r');
SELECT twins('WITH RECURSIVE r AS (SELECT dst AS id, 2000000000 AS n FROM @g WHERE src = 10004 UNION ALL SELECT e.dst, r.n + 100000000 FROM r JOIN @g e ON e.src = r.id) SELECT n FROM r LIMIT 2', true);
-- Postgres' own: values that are equal and look different, rows, numbers that may grow, and what has no table in its steps
SELECT twins('WITH RECURSIVE r AS (SELECT dst, f FROM @g WHERE src < 3 UNION SELECT e.dst, e.f FROM r JOIN @g e ON e.src = r.dst) SELECT dst FROM r');
SELECT refused_for('WITH RECURSIVE r AS (SELECT dst, f FROM @g WHERE src < 3 UNION SELECT e.dst, e.f FROM r JOIN @g e ON e.src = r.dst) SELECT dst FROM r', 'grouping by this type is not lowered');
SELECT differing('WITH RECURSIVE r AS (SELECT dst, f FROM @g WHERE src < 3 UNION ALL SELECT e.dst, e.f FROM r JOIN @g e ON e.src = r.dst WHERE e.dst > 2) SELECT * FROM r');
SELECT twins('WITH RECURSIVE r AS (SELECT dst, w::numeric AS w FROM @g WHERE src = 2 UNION ALL SELECT e.dst, r.w + e.w FROM r JOIN @g e ON e.src = r.dst) SELECT * FROM r');
SELECT refused_for('WITH RECURSIVE r AS (SELECT dst, w::numeric AS w FROM @g WHERE src = 2 UNION ALL SELECT e.dst, r.w + e.w FROM r JOIN @g e ON e.src = r.dst) SELECT * FROM r', 'a numeric that is computed in the steps of a recursion');
SELECT refused_for('WITH RECURSIVE r AS (SELECT dst, 1::numeric AS w FROM @g WHERE src = 2 UNION ALL SELECT e.dst, factorial(e.dst) FROM r JOIN @g e ON e.src = r.dst) SELECT * FROM r', 'a numeric that is computed in the steps of a recursion');
SELECT refused_for('WITH RECURSIVE r AS (SELECT dst, src::numeric AS w FROM @g WHERE src = 2 UNION ALL SELECT e.dst, sum(r.dst::bigint) OVER () FROM r JOIN @g e ON e.src = r.dst) SELECT * FROM r', 'a numeric that is computed in the steps of a recursion');
-- any rows will do, but the same ones in each step
SELECT twins('WITH RECURSIVE x AS MATERIALIZED (SELECT src, dst FROM @g ORDER BY dst LIMIT 200), r AS (SELECT dst AS id FROM @g WHERE src = 1 UNION ALL SELECT x.dst FROM r JOIN x ON x.src = r.id) SELECT * FROM r');
SELECT refused_for('WITH RECURSIVE x AS MATERIALIZED (SELECT src, dst FROM @g LIMIT 200), r AS (SELECT dst AS id FROM @g WHERE src = 1 UNION ALL SELECT x.dst FROM r JOIN x ON x.src = r.id) SELECT * FROM r', 'rows that may be others in each step of a recursion');
SELECT refused_for('WITH x AS MATERIALIZED (SELECT src, dst FROM @g LIMIT 200) SELECT n.id, (SELECT count(*) FROM x WHERE x.src > n.id) FROM @n n WHERE n.id < 6', 'a CTE that may give other rows each time');
SELECT twins('WITH RECURSIVE r AS (SELECT dst FROM @g WHERE src = 10001 UNION ALL SELECT e.dst FROM r JOIN @g e ON e.src = r.dst) CYCLE dst SET again USING path SELECT dst, again FROM r');
SELECT twins('WITH RECURSIVE r AS (SELECT dst FROM @g WHERE src = 600 UNION ALL SELECT e.dst FROM r JOIN @g e ON e.src = r.dst) SEARCH BREADTH FIRST BY dst SET place SELECT dst FROM r ORDER BY place', true);
SELECT twins('WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 50) SELECT r.n, e.w FROM r JOIN @g e ON e.dst = r.n');
SELECT twins('WITH RECURSIVE r AS (SELECT 1 AS id UNION ALL SELECT x.id FROM r, LATERAL (WITH RECURSIVE s AS (SELECT e.dst AS id FROM @g e WHERE e.src = r.id UNION ALL SELECT e.dst FROM s JOIN @g e ON e.src = s.id WHERE s.id < 4) SELECT max(id) AS id FROM s) x WHERE r.id < 30) SELECT * FROM r');
-- a value that can't be fed: Postgres has to find the rows of the outer recursion's step again
SELECT twins('WITH RECURSIVE r AS (SELECT 1 AS id, timestamp ''infinity'' AS since UNION SELECT x.id, x.since FROM (WITH RECURSIVE s AS (SELECT r.id, r.since FROM r UNION ALL SELECT e.dst, s.since FROM s JOIN @g e ON e.src = s.id WHERE e.dst < 20) SELECT max(id) AS id, max(since) AS since FROM s) x WHERE x.id < 30 OR x.id IS NULL) SELECT * FROM r');

-- only where Postgres would scan the table for each step, and that costs more than a step in the engine
SET lake.bulk_rows = 10;
CREATE TABLE large_heap AS SELECT g / 3 AS src, g AS dst FROM generate_series(1, 100000) g;
CREATE TABLE large_lake USING iceberg AS SELECT * FROM large_heap;
CREATE TABLE small_lake USING iceberg AS SELECT * FROM large_heap WHERE dst <= 1500;
SET lake.bulk_rows = -1;
ANALYZE large_heap, large_lake, small_lake;
SELECT steps_are('WITH RECURSIVE r AS (SELECT 1 AS id UNION SELECT e.dst FROM r JOIN large_lake e ON e.src = r.id) SELECT * FROM r');
SELECT steps_are('WITH RECURSIVE r AS (SELECT 1 AS id UNION SELECT e.dst FROM r JOIN small_lake e ON e.src = r.id) SELECT * FROM r');
SELECT differing('WITH RECURSIVE r AS (SELECT 1 AS id UNION SELECT e.dst FROM r JOIN @large e ON e.src = r.id) SELECT * FROM r');
SELECT differing('WITH RECURSIVE r AS (SELECT 1 AS id, 0 AS depth UNION ALL SELECT e.dst, r.depth + 1 FROM r JOIN @large e ON e.src = r.id) SELECT * FROM r');
SELECT steps_are('WITH RECURSIVE r AS (SELECT 1 AS id UNION SELECT e.dst FROM r JOIN g_heap e ON e.src = r.id) SELECT * FROM r JOIN g_lake l ON l.dst = r.id');
CREATE INDEX g_lake_src ON g_lake (src);
ANALYZE g_lake;
SELECT differing('WITH RECURSIVE r AS (SELECT 1 AS id UNION SELECT e.dst FROM r JOIN @g e ON e.src = r.id) SELECT * FROM r');
SET lake.engine = force;
EXPLAIN (COSTS OFF) WITH RECURSIVE r AS (SELECT dst AS id, 0 AS depth FROM g_lake WHERE src = 1 UNION SELECT e.dst, r.depth + 1 FROM r JOIN g_lake e ON e.src = r.id WHERE r.depth < 5) SELECT depth, count(*) FROM r GROUP BY depth;
EXPLAIN (COSTS OFF) WITH RECURSIVE r AS (SELECT dst AS id FROM g_lake WHERE src = 1 UNION ALL SELECT e.dst FROM r JOIN g_lake e ON e.src = r.id) SELECT * FROM r;
RESET lake.engine;
DROP FUNCTION differing, refused_for, steps_are;
DROP VIEW n_lake;
DROP TABLE of_heap, of_lake, g_heap, g_lake, n_heap, large_heap, large_lake, small_lake;
RESET client_min_messages;
