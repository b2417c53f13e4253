-- Purpose: the engine's answers are heap's: values, NULLs, order, errors; EXPLAIN says what it runs.
SET lake.bulk_rows = 10;
CREATE TABLE e_heap (
    id int, i2 smallint, i8 bigint, f4 real, f8 double precision, n numeric(12,2), w numeric(30,10),
    t text, v varchar(10), c char(5), b bool, d date, ts timestamp, tz timestamptz, u uuid, x bytea);
CREATE TABLE e_lake (LIKE e_heap) USING iceberg;
INSERT INTO e_heap
SELECT g, g % 100, g * 1000000007::bigint, g / 8.0, g / 3.0::float8, (g % 1000) * 1.37 - 300, g * 12345.678901,
       'text ' || g % 50, 'v' || g % 7, chr(65 + g % 26), g % 3 = 0, date '2020-01-01' + g % 700,
       timestamp '2020-01-01' + g * interval '1 hour', timestamptz '2020-01-01 00:00+00' + g * interval '1 minute',
       lpad(to_hex(g), 32, '0')::uuid, decode(lpad(to_hex(g % 16), 2, '0'), 'hex')
FROM generate_series(1, 5000) g;
-- rows of NULLs and of extremes
INSERT INTO e_heap (id) SELECT -g FROM generate_series(1, 20) g;
INSERT INTO e_heap (id, f4, f8, t, c) VALUES
    (-100, 'NaN', 'NaN', '', ''), (-101, 'Infinity', '-Infinity', 'ä', 'ä'), (-102, '-0', '-0', 'Z', 'z'),
    (-103, 0, 0, ' ', ' '), (-104, 1e-40, 5e-324, E'\t', 'a b');
INSERT INTO e_lake SELECT * FROM e_heap WHERE id > 0;
SET lake.bulk_rows = -1;
INSERT INTO e_lake SELECT * FROM e_heap WHERE id <= 0;
ANALYZE e_heap, e_lake;
SELECT * FROM hot_cold('e_lake');

-- whole rows
SELECT twins('SELECT * FROM @e');
-- one aggregate of everything
SELECT twins('SELECT count(*) FROM @e');
SELECT twins('SELECT count(*), count(i2), count(t), count(b), sum(i2), sum(id), sum(i8), sum(n), sum(w) FROM @e');
SELECT twins('SELECT min(id), max(id), min(i2), max(i2), min(i8), max(i8), min(n), max(n), min(w), max(w) FROM @e');
SELECT twins('SELECT min(d), max(d), min(ts), max(ts), min(tz), max(tz) FROM @e');
SELECT twins('SELECT min(f4), max(f4), min(f8), max(f8) FROM @e WHERE id <> -102');
SELECT twins('SELECT min(f4), max(f8) FROM @e WHERE id = -102');
SELECT twins('SELECT min(t), max(t), min(v), max(v), min(c), max(c) FROM @e');
SELECT twins('SELECT avg(i2), avg(id), avg(i8), avg(n), avg(w) FROM @e');
SELECT twins('SELECT round(sum(f8)::numeric, 6), round(avg(f8)::numeric, 6) FROM @e WHERE id > 0');
SELECT twins('SELECT sum(f8), sum(f4) FROM @e');
SELECT twins('SELECT sum(f4) FROM @e WHERE id BETWEEN 1 AND 100');
SELECT twins('SELECT count(DISTINCT t), count(DISTINCT i2), count(DISTINCT b), sum(DISTINCT i2) FROM @e');
SELECT twins('SELECT count(DISTINCT f8) FROM @e WHERE id < 0');
SELECT twins('SELECT bool_and(b), bool_or(b), string_agg(v, '','' ORDER BY id), array_agg(i2 ORDER BY id) FROM @e WHERE id < 20');
SELECT twins('SELECT stddev(n), variance(i2), round(corr(i2, id)::numeric, 12) FROM @e WHERE id > 0');
SELECT twins('SELECT count(*) FILTER (WHERE b), sum(n) FILTER (WHERE t = ''text 3''), count(*) FILTER (WHERE b IS NULL) FROM @e');
-- over nothing
SELECT twins('SELECT count(*), sum(id), min(t), avg(n) FROM @e WHERE id > 1000000');
SELECT twins('SELECT i2, count(*) FROM @e WHERE id > 1000000 GROUP BY i2');
SELECT twins('SELECT count(*) FROM @e HAVING count(*) > 1000000');
SELECT twins('SELECT 1 FROM @e WHERE false');
SELECT twins('SELECT count(*) FROM @e WHERE NULL');

-- filters
SELECT twins('SELECT id FROM @e WHERE id = 77');
SELECT twins('SELECT count(*), sum(id) FROM @e WHERE id BETWEEN 100 AND 200 AND i2 <> 50');
SELECT twins('SELECT count(*) FROM @e WHERE id IN (1, 2, 3, 4999, -5, 77777)');
SELECT twins('SELECT count(*) FROM @e WHERE id NOT IN (1, 2, 3)');
SELECT twins('SELECT count(*) FROM @e WHERE i2 NOT IN (1, 2, NULL)');
SELECT twins('SELECT count(*) FROM @e WHERE i2 IN (1, 2, NULL)');
SELECT twins('SELECT count(*) FROM @e WHERE t IS NULL');
SELECT twins('SELECT count(*) FROM @e WHERE t IS NOT NULL AND NOT b');
SELECT twins('SELECT count(*) FROM @e WHERE b');
SELECT twins('SELECT count(*) FROM @e WHERE b IS TRUE');
SELECT twins('SELECT count(*) FROM @e WHERE b IS NOT TRUE');
SELECT twins('SELECT count(*) FROM @e WHERE b IS UNKNOWN');
SELECT twins('SELECT count(*) FROM @e WHERE b IS NOT FALSE');
SELECT twins('SELECT count(*) FROM @e WHERE b = (i2 > 50)');
SELECT twins('SELECT count(*) FROM @e WHERE i2 > 50 OR NULL');
SELECT twins('SELECT count(*) FROM @e WHERE i2 > 50 AND NULL');
SELECT twins('SELECT count(*) FROM @e WHERE NOT (i2 > 50 OR t LIKE ''text 1%'')');
SELECT twins('SELECT count(*) FROM @e WHERE t LIKE ''text 1%''');
SELECT twins('SELECT count(*) FROM @e WHERE t LIKE ''%_1''');
SELECT twins('SELECT count(*) FROM @e WHERE t NOT LIKE ''text %''');
SELECT twins('SELECT count(*) FROM @e WHERE t LIKE ''te\xt%''');
SELECT twins('SELECT count(*) FROM @e WHERE t LIKE '''' ');
SELECT twins('SELECT count(*) FROM @e WHERE t ILIKE ''TEXT 1%''');
SELECT twins('SELECT count(*) FROM @e WHERE c LIKE ''A%''');
SELECT twins('SELECT count(*) FROM @e WHERE c LIKE ''A''');
SELECT twins('SELECT count(*) FROM @e WHERE c = ''A''');
SELECT twins('SELECT count(*) FROM @e WHERE c = ''A   ''');
SELECT twins('SELECT count(*) FROM @e WHERE c = ''A   ''::text');
SELECT twins('SELECT count(*) FROM @e WHERE c < ''F'' AND c >= ''B''');
SELECT twins('SELECT count(*) FROM @e WHERE v = t OR v = ''v3''');
SELECT twins('SELECT count(*) FROM @e WHERE t < ''text 3''');
SELECT twins('SELECT count(*) FROM @e WHERE t > ''text 3'' COLLATE "C"');
SELECT twins('SELECT id FROM @e WHERE f8 = ''NaN''');
SELECT twins('SELECT id FROM @e WHERE f8 > 1e300 ORDER BY id', true);
SELECT twins('SELECT count(*) FROM @e WHERE f8 < 0');
SELECT twins('SELECT id FROM @e WHERE f8 = 0');
SELECT twins('SELECT id FROM @e WHERE f4 = -0.0::float4');
SELECT twins('SELECT count(*) FROM @e WHERE f4 = f8');
SELECT twins('SELECT count(*) FROM @e WHERE f4 < 0.1');
SELECT twins('SELECT count(*) FROM @e WHERE n > 100.005');
SELECT twins('SELECT count(*) FROM @e WHERE n = 100');
SELECT twins('SELECT count(*) FROM @e WHERE n < id');
SELECT twins('SELECT count(*) FROM @e WHERE n > f8');
SELECT twins('SELECT count(*) FROM @e WHERE w = n');
SELECT twins('SELECT count(*) FROM @e WHERE i2 = id');
SELECT twins('SELECT count(*) FROM @e WHERE i8 > 3000000000');
SELECT twins('SELECT count(*) FROM @e WHERE id = 3000000000');
SELECT twins('SELECT count(*) FROM @e WHERE i2 < 100000');
SELECT twins('SELECT count(*) FROM @e WHERE d < ''2020-06-01''');
SELECT twins('SELECT count(*) FROM @e WHERE d = ''2020-06-01''::timestamp');
SELECT twins('SELECT count(*) FROM @e WHERE d <= date ''2020-06-01'' - interval ''30 day''');
SELECT twins('SELECT count(*) FROM @e WHERE d > ''infinity''');
SELECT twins('SELECT count(*) FROM @e WHERE ts >= ''2020-03-01'' AND ts < ''2020-04-01''');
SELECT twins('SELECT count(*) FROM @e WHERE tz >= ''2020-01-02 00:00+00''');
SELECT twins('SELECT count(*) FROM @e WHERE tz > ts');
SELECT twins('SELECT count(*) FROM @e WHERE tz > d');
SELECT twins('SELECT id FROM @e WHERE u = ''00000000-0000-0000-0000-0000000000ff''');
SELECT twins('SELECT count(*) FROM @e WHERE u < ''00000000-0000-0000-0000-0000000000ff''');
SELECT twins('SELECT count(*) FROM @e WHERE x = ''\x0a''');
SELECT twins('SELECT count(*) FROM @e WHERE x > ''\x0a''');

-- expressions
SELECT twins('SELECT sum(i2 + id), sum(i8 - id), sum(n * 2), sum(n * n), sum(n + w), sum(n * (1 - i2 / 100.0)) FROM @e');
SELECT twins('SELECT id, i2 * 2 + 1, -id, i8 / 7, i8 % 7, id / -3, id % -3, n / 3 FROM @e WHERE id < 50');
SELECT twins('SELECT id, -f8, f8 + 1, f4 * 2, f8 / 3, abs(id), round(n), round(n, 1), trunc(n) FROM @e WHERE id < 50');
SELECT twins('SELECT id, CASE WHEN i2 > 50 THEN ''big'' WHEN i2 IS NULL THEN ''none'' ELSE ''small'' END FROM @e');
SELECT twins('SELECT sum(CASE WHEN b THEN n ELSE 0 END), sum(CASE WHEN i2 = 0 THEN 0 ELSE 100 / i2 END) FROM @e');
SELECT twins('SELECT coalesce(i2, -1), coalesce(t, v, ''none''), nullif(i2, 5), greatest(i2, id), least(n, w) FROM @e');
SELECT twins('SELECT upper(t), length(t), t || v, substr(t, 2, 3), c || ''|'' FROM @e WHERE id < 100');
SELECT twins('SELECT i2::bigint, id::text, n::int, f8::int, id::float8, n::float8, b::int FROM @e WHERE id BETWEEN 1 AND 100');
SELECT twins('SELECT extract(year FROM d), date_trunc(''month'', ts), d + 1, d - date ''2020-01-01'', ts + interval ''1 month'' FROM @e');
SELECT twins('SELECT extract(year FROM d) AS y, count(*) FROM @e GROUP BY 1 ORDER BY 1', true);
SELECT twins('SELECT n + NULL::numeric, i2 + NULL, t || NULL FROM @e');
SELECT twins('SELECT b AND i2 > 3, b OR i2 > 3, NOT b, b IS NULL, i2 = 3 FROM @e');

-- GROUP BY, HAVING
SELECT twins('SELECT i2, count(*), sum(n), min(t), max(f8) FROM @e GROUP BY i2');
SELECT twins('SELECT i2, count(*) FROM @e GROUP BY i2 ORDER BY i2', true);
SELECT twins('SELECT t, b, count(*), sum(id) FROM @e GROUP BY t, b ORDER BY t, b', true);
SELECT twins('SELECT c, count(*) FROM @e GROUP BY c');
SELECT twins('SELECT f8, count(*) FROM @e WHERE id < 0 AND id <> -103 GROUP BY f8');
SELECT twins('SELECT f4, count(*) FROM @e WHERE id = -102 GROUP BY f4');
SELECT twins('SELECT DISTINCT f8 FROM @e WHERE id = -102');
SELECT twins('SELECT n, count(*) FROM @e GROUP BY n HAVING count(*) > 4');
SELECT twins('SELECT v, sum(n) AS s FROM @e GROUP BY v HAVING sum(n) > 1000 ORDER BY s DESC', true);
SELECT twins('SELECT i2 % 5, count(*) FROM @e GROUP BY 1 HAVING max(n) > 0 OR i2 % 5 IS NULL');
SELECT twins('SELECT d, x, u IS NULL, count(*) FROM @e GROUP BY 1, 2, 3');
SELECT twins('SELECT v, b, count(*) FROM @e GROUP BY ROLLUP (v, b)');
SELECT twins('SELECT GROUPING(v), v, b, count(*) FROM @e GROUP BY GROUPING SETS ((v), (b), ())');
SELECT twins('SELECT DISTINCT i2, b FROM @e');
SELECT twins('SELECT DISTINCT ON (i2) i2, id FROM @e ORDER BY i2, id', true);
SELECT twins('SELECT t FROM @e GROUP BY t HAVING bool_or(b) ORDER BY t DESC NULLS LAST', true);
SELECT twins('SELECT count(*) FROM (SELECT i2 FROM @e GROUP BY i2) q');
SELECT twins('SELECT sum(s) FROM (SELECT v, sum(n) AS s FROM @e GROUP BY v) q');

-- ORDER BY, LIMIT
SELECT twins('SELECT id, n FROM @e ORDER BY n, id LIMIT 20', true);
SELECT twins('SELECT id, n FROM @e ORDER BY n DESC, id LIMIT 20 OFFSET 5', true);
SELECT twins('SELECT id, i2 FROM @e ORDER BY i2 NULLS FIRST, id LIMIT 30', true);
SELECT twins('SELECT id, i2 FROM @e ORDER BY i2 DESC NULLS LAST, id LIMIT 30', true);
SELECT twins('SELECT f8 FROM @e WHERE id < 3 ORDER BY f8, id', true);
SELECT twins('SELECT f4, id FROM @e WHERE id < 3 ORDER BY f4 DESC, id', true);
SELECT twins('SELECT t, id FROM @e ORDER BY t, id LIMIT 40', true);
SELECT twins('SELECT t COLLATE "C" AS tc, id FROM @e ORDER BY tc DESC, id LIMIT 40', true);
SELECT twins('SELECT u, id FROM @e ORDER BY u DESC NULLS LAST LIMIT 10', true);
SELECT twins('SELECT x, id FROM @e ORDER BY x, id LIMIT 10', true);
SELECT twins('SELECT tz, ts, d FROM @e ORDER BY tz DESC NULLS LAST, ts LIMIT 10', true);
SELECT twins('SELECT v, sum(n) FROM @e GROUP BY v ORDER BY sum(n) DESC NULLS LAST LIMIT 3', true);
SELECT twins('SELECT v, b, count(*) FROM @e GROUP BY v, b ORDER BY 3 DESC, 1, 2 LIMIT 5', true);
SELECT twins('SELECT count(*) FROM (SELECT * FROM @e LIMIT 123) q');
SELECT twins('SELECT count(*) FROM (SELECT * FROM @e OFFSET 5000) q');
SELECT twins('SELECT id FROM @e ORDER BY id LIMIT 0', true);
SELECT twins('SELECT id FROM @e ORDER BY id LIMIT NULL OFFSET 5010', true);
SELECT twins('SELECT id FROM @e ORDER BY id LIMIT -1', true);
SELECT twins('SELECT id FROM @e ORDER BY id OFFSET -1', true);
SELECT twins('SELECT i2 FROM @e ORDER BY i2 FETCH FIRST 3 ROWS WITH TIES', true);

-- errors have heap's SQLSTATE
SELECT twins('SELECT id / (id - 7) FROM @e');
SELECT twins('SELECT count(*) FROM @e WHERE id / (id - 7) > 0');
SELECT twins('SELECT sum(1 / (i2 - 1)) FROM @e');
SELECT twins('SELECT id % (i2 - 1) FROM @e');
SELECT twins('SELECT i8 / (i2 - 1) FROM @e');
SELECT twins('SELECT n / (i2 - 1) FROM @e');
SELECT twins('SELECT f8 / (i2 - 1) FROM @e');
SELECT twins('SELECT id * 1000000 FROM @e');
SELECT twins('SELECT sum(id * 1000000) FROM @e');
SELECT twins('SELECT i2 * 1000::smallint FROM @e');
SELECT twins('SELECT i8 * 1000000000 FROM @e');
SELECT twins('SELECT id + 2147483647 FROM @e');
SELECT twins('SELECT -(id - 2147483647 - 101) FROM @e');
SELECT twins('SELECT count(*) FROM @e WHERE id - 2147483647 < 0');
SELECT twins('SELECT sum(i8) FROM @e');
SELECT twins('SELECT sum(i8 * 1000000) FROM @e');
SELECT twins('SELECT f8 * 1e308 FROM @e WHERE id > 0');
SELECT twins('SELECT sum(f8 * 1e305) FROM @e WHERE id > 0');
SELECT twins('SELECT f4 * 1e-40::float4 FROM @e WHERE id > 0');
SELECT twins('SELECT i8::int FROM @e');
SELECT twins('SELECT id::smallint FROM @e');
SELECT twins('SELECT (n * 1000)::numeric(5,2) FROM @e');
SELECT twins('SELECT t::int FROM @e');
SELECT twins('SELECT count(*) FROM @e WHERE t::int = 3');
SELECT twins('SELECT (d + 2147483647) FROM @e');
-- guarded expressions don't raise what heap doesn't raise
SELECT twins('SELECT count(*) FROM @e WHERE CASE WHEN i2 = 1 THEN false ELSE 1 / (i2 - 1) > 0 END');
SELECT twins('SELECT sum(CASE WHEN id = 7 THEN 0 ELSE 10 / (id - 7) END) FROM @e');
SELECT twins('SELECT count(*) FROM @e WHERE id <> 7 AND 10 / (id - 7) >= 0');
SELECT twins('SELECT count(*) FROM @e WHERE id = 7 OR 10 / (id - 7) >= 0');
SELECT twins('SELECT coalesce(i2, 1 / (id - id)) FROM @e WHERE id > 0');
SELECT twins('SELECT sum(10 / (id - 7)) FILTER (WHERE id <> 7) FROM @e');
SELECT twins('SELECT 10 / (id - 7) FROM @e WHERE id <> 7 ORDER BY id LIMIT 3', true);

-- parameters: custom and generic plans, of every kind of value
PREPARE p1(int, text) AS SELECT count(*), sum(n) FROM e_lake WHERE id > $1 AND t LIKE 'text%' AND t <> $2;
PREPARE p1h(int, text) AS SELECT count(*), sum(n) FROM e_heap WHERE id > $1 AND t LIKE 'text%' AND t <> $2;
SET plan_cache_mode = force_generic_plan;
EXECUTE p1(100, 'text 5');
EXECUTE p1h(100, 'text 5');
EXECUTE p1(4000, NULL);
EXECUTE p1h(4000, NULL);
EXECUTE p1(4990, 'x');
EXECUTE p1h(4990, 'x');
SET plan_cache_mode = force_custom_plan;
EXECUTE p1(4990, 'x');
RESET plan_cache_mode;
PREPARE p2(date, numeric, uuid, float8, bool, bytea, timestamptz, char) AS
    SELECT count(*) FROM e_lake WHERE d > $1 AND n < $2 AND u > $3 AND f8 > $4 AND b = $5 AND x <> $6 AND tz > $7 AND c <> $8;
PREPARE p2h(date, numeric, uuid, float8, bool, bytea, timestamptz, char) AS
    SELECT count(*) FROM e_heap WHERE d > $1 AND n < $2 AND u > $3 AND f8 > $4 AND b = $5 AND x <> $6 AND tz > $7 AND c <> $8;
SET plan_cache_mode = force_generic_plan;
EXECUTE p2('2020-05-01', 100.555, '00000000-0000-0000-0000-000000000010', 3.5, true, '\x01', '2020-01-01 10:00+00', 'B');
EXECUTE p2h('2020-05-01', 100.555, '00000000-0000-0000-0000-000000000010', 3.5, true, '\x01', '2020-01-01 10:00+00', 'B');
EXECUTE p2('-infinity', 'NaN', '00000000-0000-0000-0000-000000000010', '-Infinity', true, '', '-infinity', '');
EXECUTE p2h('-infinity', 'NaN', '00000000-0000-0000-0000-000000000010', '-Infinity', true, '', '-infinity', '');
PREPARE p3(int, int) AS SELECT id FROM e_lake ORDER BY id LIMIT $1 OFFSET $2;
EXECUTE p3(2, 30);
EXECUTE p3(NULL, 5023);
EXECUTE p3(0, 0);
EXECUTE p3(-1, 0);
PREPARE p4(int[]) AS SELECT count(*) FROM e_lake WHERE id = ANY ($1);
EXECUTE p4('{1,2,NULL,3}');
EXECUTE p4('{}');
EXECUTE p4(NULL);
PREPARE p5(int) AS SELECT 1000 / $1, count(*) FROM e_lake WHERE id > 1000 / $1 GROUP BY 1;
EXECUTE p5(10);
EXECUTE p5(0);
RESET plan_cache_mode;
-- a cached plan follows the table
PREPARE p6 AS SELECT count(*), sum(id) FROM e_lake;
EXECUTE p6;
SET lake.bulk_rows = 10;
INSERT INTO e_lake (id) SELECT 0 FROM generate_series(1, 25) g;
EXECUTE p6;
ALTER TABLE e_lake ADD COLUMN extra int DEFAULT 5;
EXECUTE p6;
PREPARE p7 AS SELECT sum(extra) FROM e_lake;
EXECUTE p7;
ALTER TABLE e_lake DROP COLUMN extra;
EXECUTE p7;
-- and the setting of lake.engine
SET lake.engine = off;
EXECUTE p6;
RESET lake.engine;
TRUNCATE e_heap;
INSERT INTO e_heap SELECT * FROM e_lake;

-- a correlated subquery's parameter
SELECT twins('SELECT v.x, (SELECT sum(n) FROM @e WHERE i2 = v.x) FROM (VALUES (1), (2), (NULL)) v(x)');
SELECT twins('SELECT v.x, (SELECT count(*) FROM @e WHERE t = v.x) FROM (VALUES (''text 1''), (''none'')) v(x)');
SELECT twins('SELECT id FROM @e o WHERE n = (SELECT max(n) FROM @e) ORDER BY id', true);
SELECT twins('SELECT a.v, b.s FROM (SELECT DISTINCT v FROM @e) a JOIN (SELECT v, sum(n) AS s FROM @e GROUP BY v) b USING (v) ORDER BY 1', true);

-- joins with a heap table
SELECT twins('SELECT count(*), sum(e.n) FROM @e e JOIN (VALUES (1), (2)) v(x) ON e.i2 = v.x');
SELECT twins('SELECT count(*) FROM @e a JOIN @e b ON a.id = b.id AND a.f8 = b.f8');

-- what is lowered, and why not
EXPLAIN (COSTS OFF) SELECT count(*), sum(n) FROM e_lake;
EXPLAIN (COSTS OFF) SELECT i2, sum(n * (1 - n)) FROM e_lake WHERE d <= '2020-09-01' GROUP BY i2 ORDER BY i2;
EXPLAIN (COSTS OFF) SELECT id, n FROM e_lake WHERE n > 100 AND t LIKE 'text 1%';
EXPLAIN (COSTS OFF) SELECT v, json_agg(n) FROM e_lake GROUP BY v;
EXPLAIN (COSTS OFF) SELECT id FROM e_lake WHERE random() > 2 AND id > 5;
SET lake.engine = off;
EXPLAIN (COSTS OFF) SELECT count(*), sum(n) FROM e_lake;
SET lake.engine = force;
SELECT count(*), sum(n) FROM e_lake;
SELECT v, count(DISTINCT id) > 5 FROM e_lake WHERE random() > 2 GROUP BY v;
SELECT count(*) FROM e_heap;
RESET lake.engine;
-- EXPLAIN ANALYZE counts what was read; a filter on a bound prunes
CREATE TABLE e_prune (id int, t text) USING iceberg;
SET lake.bulk_rows = 0;
INSERT INTO e_prune SELECT g, 'a' FROM generate_series(1, 3000) g;
INSERT INTO e_prune SELECT g, 'b' FROM generate_series(3001, 6000) g;
ANALYZE e_prune;
CREATE FUNCTION e_counts(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) ' || query LOOP
        IF line ~ 'actual|Files|Row Groups|Rows' THEN RETURN NEXT line; END IF;
    END LOOP;
END $$;
SELECT e_counts('SELECT count(*) FROM e_prune WHERE id > 4000');
SELECT e_counts('SELECT id FROM e_prune WHERE t = ''a'' AND id = 7');
SELECT e_counts('SELECT id FROM e_prune WHERE id > 10000');
SELECT count(*), min(id) FROM e_prune WHERE id > 2999;
SELECT count(*) FROM e_prune WHERE id > 6000;
-- the tables' statistics have what it has read, hot and cold
SELECT pg_stat_force_next_flush();
BEGIN;
SET LOCAL lake.engine = force;
SELECT count(*) FROM e_lake l JOIN (SELECT id AS i FROM e_lake) r ON l.id = r.i;
SELECT seq_scan, seq_tup_read = 2 * (SELECT count(*) FROM e_lake) AS all_read
FROM pg_stat_xact_user_tables WHERE relname = 'e_lake';
COMMIT;
-- a scan that ends early counts the rows that it has passed, and each time that it starts again
SELECT pg_stat_force_next_flush();
BEGIN;
SET LOCAL lake.engine = force;
DECLARE c CURSOR FOR SELECT id, t FROM e_prune;
MOVE 10 FROM c;
CLOSE c;
SELECT seq_tup_read FROM pg_stat_xact_user_tables WHERE relname = 'e_prune';
SET LOCAL lake.engine = on;
SELECT count((SELECT t FROM e_prune WHERE id + g > random() LIMIT 1)) FROM generate_series(1, 3) g;
SELECT seq_tup_read FROM pg_stat_xact_user_tables WHERE relname = 'e_prune';
-- what a filter has dropped is counted, too, as far as it has been read
DECLARE c CURSOR FOR SELECT id FROM e_prune WHERE id > 4000;
MOVE 10 FROM c;
CLOSE c;
SELECT seq_tup_read BETWEEN 13 + 10 AND 13 + 6000 AS some FROM pg_stat_xact_user_tables WHERE relname = 'e_prune';
COMMIT;
SELECT pg_stat_force_next_flush();
BEGIN;
SET LOCAL lake.engine = force;
DECLARE c CURSOR FOR SELECT count(*) FROM e_prune a JOIN e_prune b ON a.id = b.id GROUP BY a.id;
MOVE 10 FROM c;
CLOSE c;
SELECT seq_tup_read BETWEEN 10 AND 12000 AS some FROM pg_stat_xact_user_tables WHERE relname = 'e_prune';
COMMIT;
DEALLOCATE ALL;
-- rights to functions are asked for as Postgres does, of whoever executes
BEGIN;
CREATE ROLE e_reader;
GRANT SELECT ON e_lake TO e_reader;
PREPARE e_sum AS SELECT sum(i8) > 0 FROM e_lake WHERE mod(id, 3) = 1;
EXECUTE e_sum;
REVOKE EXECUTE ON FUNCTION mod(int, int), sum(bigint) FROM PUBLIC;
SET LOCAL ROLE e_reader;
SAVEPOINT s;
SELECT sum(i8) > 0 FROM e_lake;
ROLLBACK TO s;
SELECT count(*) FROM e_lake WHERE mod(id, 3) = 1;
ROLLBACK TO s;
EXECUTE e_sum;
ROLLBACK;
DEALLOCATE e_sum;
DROP TABLE e_heap, e_lake, e_prune;
DROP FUNCTION e_counts;
