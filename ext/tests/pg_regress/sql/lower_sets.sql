-- Purpose: functions that return sets, in target lists and in FROM, give heap's rows: how many rows differ, or why the engine
-- refused.
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
    RETURN n;
EXCEPTION WHEN feature_not_supported THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
    PERFORM set_config('lake.engine', 'on', true);
    RETURN 'refused: ' || detail;
END $$;
SET client_min_messages = warning;
SET lake.bulk_rows = 10;
CREATE TABLE s_heap (id int, n int, b bigint, a int[], t text[] COLLATE "C", d numeric(8,2)[]);
INSERT INTO s_heap
SELECT g, nullif(g % 7, 3) - 1, g * 1000000007::bigint,
       CASE WHEN g % 11 <> 0 THEN ARRAY(SELECT nullif(i, 2) FROM generate_series(1, g % 5) i) END,
       CASE g % 4 WHEN 0 THEN '{}' WHEN 1 THEN ARRAY['x' || g] WHEN 2 THEN ARRAY['y', NULL, ''] END,
       ARRAY[g / 8.0, -g]
FROM generate_series(1, 6000) g;
CREATE TABLE s_lake (LIKE s_heap) USING iceberg;
INSERT INTO s_lake SELECT * FROM s_heap WHERE id <= 5000;
SET lake.bulk_rows = -1;
INSERT INTO s_lake SELECT * FROM s_heap WHERE id > 5000;
ANALYZE s_heap, s_lake;

-- in target lists: one, several in lockstep, nested
SELECT differing('SELECT id, unnest(a) FROM @s');
SELECT differing('SELECT unnest(t) FROM @s');
SELECT differing('SELECT id, unnest(d) FROM @s');
SELECT differing('SELECT id, a, unnest(a), unnest(t), generate_series(1, n) FROM @s');
SELECT differing('SELECT id, generate_series(n, 5) FROM @s');
SELECT differing('SELECT id, generate_series(5, n, -2), b FROM @s');
SELECT differing('SELECT generate_series(b, b + 30, 7) FROM @s WHERE id % 3 = 0');
SELECT differing('SELECT id, generate_series(9223372036854775800, 9223372036854775807, n + 3) FROM @s');
SELECT differing('SELECT unnest(a) + 1, id FROM @s');
SELECT differing('SELECT generate_series(1, unnest(a)) FROM @s');
-- above and below other nodes
SELECT differing('SELECT e, count(*), sum(id) FROM (SELECT id, unnest(a) AS e FROM @s) x GROUP BY e');
SELECT differing('SELECT count(*) FROM (SELECT id, unnest(a) AS e FROM @s) x');
SELECT differing('SELECT DISTINCT unnest(t) FROM @s');
SELECT differing('SELECT id, e FROM (SELECT id, unnest(a) AS e FROM @s) x WHERE e > 2');
SELECT differing('SELECT n, generate_series(1, count(*) / 100) FROM @s GROUP BY n');
SELECT differing('SELECT x.e, y.id FROM (SELECT unnest(a) AS e, id FROM @s) x JOIN @s y ON y.id = x.e AND y.n < x.id');
-- in FROM
SELECT differing('SELECT g, s.id FROM generate_series(1, 100) g LEFT JOIN @s s ON s.id = g');
SELECT differing('SELECT count(*), sum(g) FROM @s s JOIN generate_series(5000, 1, -3) g ON s.id = g');
SELECT differing('SELECT g, h, s.id FROM @s s JOIN ROWS FROM (generate_series(1, 5), generate_series(10, 12)) AS f(g, h) ON s.id = g');
SELECT differing('SELECT s.id FROM @s s WHERE id IN (SELECT generate_series(1, 4000, 9))');
SELECT differing('SELECT g, s.id FROM generate_series(1, 8) WITH ORDINALITY AS f(g, o) JOIN @s s ON s.id = o');
-- of outer rows
SELECT differing('SELECT id, e FROM @s s, unnest(s.a) e');
SELECT differing('SELECT s.id, e, x FROM @s s, unnest(s.a) e, unnest(s.t) x WHERE e > 1');
SELECT differing('SELECT s.id, g FROM @s s CROSS JOIN LATERAL generate_series(s.n, 3) g WHERE g <> s.id');
SELECT differing('SELECT s.id, e, x FROM @s s, unnest(s.a, s.t) AS u(e, x)');
SELECT differing('SELECT e, count(*), min(id) FROM @s s, unnest(s.a) e WHERE e < 4 GROUP BY e');
SELECT twins('SELECT s.id, e FROM @s s LEFT JOIN LATERAL unnest(s.a) e ON true');
SELECT differing('SELECT s.id, e, o FROM @s s, unnest(s.a) WITH ORDINALITY AS u(e, o)');
-- numbered, and several in lockstep
SELECT differing('SELECT s.id, e, x, o FROM @s s, ROWS FROM (unnest(s.a), unnest(s.t)) WITH ORDINALITY AS u(e, x, o) WHERE o > 1');
SELECT differing('SELECT o, count(*), max(e) FROM @s s, unnest(s.a) WITH ORDINALITY AS u(e, o) GROUP BY o');
SELECT differing('SELECT s.id, o FROM @s s, unnest(s.a) WITH ORDINALITY AS u(e, o) WHERE e = s.n');
SELECT differing('SELECT s.id, g, o FROM @s s, generate_series(3, s.n, -1) WITH ORDINALITY AS u(g, o)');
SELECT differing('SELECT g, h, o, s.id FROM ROWS FROM (generate_series(10, 12), unnest(ARRAY[7, NULL, 9, 11, 13])) WITH ORDINALITY AS f(g, h, o) JOIN @s s ON s.id = h');
SELECT differing('SELECT g, o, s.id FROM generate_series(5, 1) WITH ORDINALITY AS f(g, o) RIGHT JOIN @s s ON s.id = o WHERE s.id < 4');
SELECT differing('SELECT count(*), sum(o), sum(g) FROM @s s JOIN generate_series(5000, 1, -3) WITH ORDINALITY AS f(g, o) ON s.id = g');
-- of listed elements
SELECT differing('SELECT id, unnest(ARRAY[n, id, 7]) FROM @s');
SELECT differing('SELECT id, v FROM @s s, unnest(ARRAY[s.b, s.id]) v WHERE v > 5');
SELECT differing('SELECT v, s.id FROM unnest(ARRAY[3, 5, NULL, 5]) v JOIN @s s ON s.id = v');
SELECT differing('SELECT s.id, e FROM @s s, unnest(''{}''::int[]) e');
SELECT differing('SELECT s.id, e FROM @s s, unnest(NULL::text[]) e');
SELECT differing(format('SELECT s.id, e FROM @s s JOIN unnest(%L::int[]) e ON e = s.id', ARRAY(SELECT generate_series(1, 2500, 2))));
-- of parameters: an array is one, so are the ends of a series
CREATE FUNCTION prepared(types text, query text, VARIADIC arguments text[]) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    argument text;
    heap text;
    lake text;
BEGIN
    PERFORM set_config('plan_cache_mode', 'force_generic_plan', true), set_config('lake.engine', 'force', true);
    EXECUTE format('PREPARE of_heap(%s) AS %s', types, regexp_replace(query, '@(\w+)', '\1_heap', 'g'));
    EXECUTE format('PREPARE of_lake(%s) AS %s', types, regexp_replace(query, '@(\w+)', '\1_lake', 'g'));
    FOREACH argument IN ARRAY arguments LOOP
        heap := rows_or_error(format('EXECUTE of_heap(%s)', argument), false);
        lake := rows_or_error(format('EXECUTE of_lake(%s)', argument), false);
        IF lake IS DISTINCT FROM heap THEN
            RETURN NEXT format('%s: heap %L, lake %L', argument, left(heap, 200), left(lake, 200));
        END IF;
    END LOOP;
    DEALLOCATE of_heap;
    DEALLOCATE of_lake;
END $$;
SELECT prepared('int[]', 'SELECT s.id, e, o FROM @s s, unnest($1) WITH ORDINALITY AS u(e, o) WHERE s.id < 9', '''{5,NULL,7}''', '''{}''', 'NULL', '''[4:5]={1,2}''', 'array_fill(7, ARRAY[1500])');
SELECT prepared('int[], text[]', 'SELECT s.id, e, x FROM @s s JOIN ROWS FROM (unnest($1), unnest($2)) AS u(e, x) ON s.id = e', '''{5,3}'', ''{a,NULL,""}''', '''{}'', ''{ä}''', '''{9}'', NULL');
SELECT prepared('bigint[]', 'SELECT b, unnest($1) FROM @s WHERE id < 5', '''{9223372036854775807,NULL}''', '''{}''');
SELECT prepared('date[]', 'SELECT count(*), min(u) FROM @s s, unnest($1) u WHERE s.id = 3', '''{2024-01-01,1999-12-31}''');
SELECT prepared('int, int', 'SELECT g, o, s.id FROM generate_series($1, $2) WITH ORDINALITY AS f(g, o) JOIN @s s ON s.id = g', '1, 5', '5, 1', 'NULL, 3', '5998, 7000');
SELECT prepared('bigint, bigint, bigint', 'SELECT s.id, g FROM @s s JOIN generate_series($1, $2, $3) g ON s.id = g', '1, 50, 7', '50, 1, -7', '1, 2, 0', '1, NULL, 0');
SELECT prepared('int[]', 'SELECT count(*), sum(e) FROM @s s JOIN unnest($1) e ON e = s.id WHERE s.n = ANY ($1)', '''{1,2,3,4,5,6,7,8}''');
-- a limit, and orders
-- nothing is computed for a LIMIT of nothing
SELECT twins('SELECT sqrt(-id) FROM @s ORDER BY 1 LIMIT 0', true), twins('(SELECT id FROM @s EXCEPT ALL SELECT id / (n - n) FROM @s) ORDER BY 1 LIMIT 0 OFFSET 3', true);
SELECT twins('SELECT id, unnest(a) FROM @s ORDER BY id LIMIT 25', true);
SELECT twins('SELECT id, unnest(t) FROM @s WHERE id < 100 ORDER BY id DESC, 2', true);
SELECT twins('SELECT count(*) FROM (SELECT generate_series(1, 1000000000000000) FROM @s LIMIT 10) x');
SELECT twins('SELECT id, e FROM (SELECT id, n, a FROM @s ORDER BY n, id) x, unnest(x.a) e', true);
SELECT twins('SELECT row_number() OVER (), lag(u) OVER (), u FROM (SELECT unnest(a) AS u FROM @s ORDER BY id) x', true);
-- errors
SELECT twins('SELECT id, generate_series(1, 2, n) FROM @s');
SELECT twins('SELECT id / n, unnest(a) FROM @s');
SELECT twins('SELECT id / n, unnest(NULL::int[]) FROM @s');
SET enable_hashjoin = off;
SET enable_nestloop = off;
SELECT twins('SELECT s.id, unnest(s.a) FROM @s s JOIN @s u ON s.id = u.id WHERE 100 / (s.id - 4000 + 0 * u.id) < 10 LIMIT 5');
RESET enable_hashjoin;
RESET enable_nestloop;
-- functions that the engine doesn't have stay in Postgres
SELECT twins('SELECT id, regexp_split_to_table(t[1], '''') FROM @s');
SELECT twins('SELECT id, generate_subscripts(a, 1) FROM @s');
-- of a composite type with one field FROM has that field
CREATE TYPE s_one AS (x int);
CREATE TABLE o_heap (id int, c s_one[]);
INSERT INTO o_heap SELECT g, ARRAY[ROW(g)::s_one, NULL, ROW(NULL)::s_one] FROM generate_series(1, 3000) g;
CREATE TABLE o_lake (LIKE o_heap) USING iceberg;
SET lake.bulk_rows = 10;
INSERT INTO o_lake SELECT * FROM o_heap;
SET lake.bulk_rows = -1;
ANALYZE o_heap, o_lake;
SELECT twins('SELECT o.id, u.x FROM @o o, unnest(o.c) u');
SELECT twins('SELECT count(*), sum(u.x) FROM @o o, unnest(o.c) u WHERE u.x > 10');
SELECT twins('SELECT id, unnest(c) FROM @o');
-- rights to functions are asked for
BEGIN;
CREATE ROLE s_reader;
GRANT SELECT ON s_lake TO s_reader;
REVOKE EXECUTE ON FUNCTION generate_series(int, int), unnest(anyarray) FROM PUBLIC;
SET LOCAL ROLE s_reader;
SAVEPOINT s;
SELECT count(*) FROM (SELECT unnest(a) FROM s_lake) x;
ROLLBACK TO s;
SELECT count(*) FROM s_lake s, unnest(s.a) e;
ROLLBACK TO s;
SELECT count(*) FROM s_lake s JOIN generate_series(1, 5) g ON g = s.id;
ROLLBACK;
EXPLAIN (COSTS OFF) SELECT id, unnest(a) FROM s_lake;
EXPLAIN (COSTS OFF) SELECT s.id, e, o FROM s_lake s, unnest(s.a) WITH ORDINALITY AS u(e, o);
RESET client_min_messages;
DROP FUNCTION differing, prepared;
DROP TABLE s_heap, s_lake, o_heap, o_lake;
DROP TYPE s_one;
