-- Purpose: window functions, set operations and grouping sets in the engine give heap's rows: how many rows differ, or
-- why the engine refused.
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
CREATE TABLE w_heap (id int, p int, q text COLLATE "C", o int, n numeric(10,2), i bigint, s smallint, f float8, d date, c char(5), b bool, r real);
INSERT INTO w_heap
SELECT g, nullif(g % 37, 5), nullif('q' || g % 11, 'q3'), nullif(g * 7919 % 1000, 13), nullif(g % 1000, 7) / 8.0,
       g * 1000000007::bigint, g % 300 - 150, CASE WHEN g % 50 = 0 THEN NULL ELSE sin(g) * 1e6 END,
       date '2024-01-01' + g % 400, 'c' || g % 9, g % 3 = 0, CASE WHEN g % 40 <> 1 THEN cos(g) * 1000 END
FROM generate_series(1, 20000) g;
CREATE TABLE w_lake (LIKE w_heap) USING iceberg;
INSERT INTO w_lake SELECT * FROM w_heap WHERE id <= 15000;
SET lake.bulk_rows = -1;
INSERT INTO w_lake SELECT * FROM w_heap WHERE id > 15000;
ANALYZE w_heap, w_lake;
SELECT * FROM hot_cold('w_lake');

-- places in a partition
SELECT differing('SELECT id, row_number() OVER (PARTITION BY p ORDER BY o, id) FROM @w');
SELECT differing('SELECT id, row_number() OVER (ORDER BY o DESC, id), rank() OVER (ORDER BY o DESC, id) FROM @w');
SELECT differing('SELECT id, rank() OVER w, dense_rank() OVER w FROM @w WINDOW w AS (PARTITION BY p ORDER BY o)');
SELECT differing('SELECT id, rank() OVER w, dense_rank() OVER w FROM @w WINDOW w AS (PARTITION BY p, q ORDER BY d DESC NULLS LAST)');
SELECT differing('SELECT id, percent_rank() OVER w, cume_dist() OVER w FROM @w WINDOW w AS (PARTITION BY q ORDER BY o NULLS FIRST)');
SELECT differing('SELECT id, ntile(7) OVER (PARTITION BY p ORDER BY o, id), ntile(100000) OVER (ORDER BY id) FROM @w');
SELECT differing('SELECT id, rank() OVER (PARTITION BY p), cume_dist() OVER () FROM @w');
SELECT differing('SELECT id, rank() OVER (PARTITION BY b ORDER BY f) FROM @w');
SELECT differing('SELECT id, rank() OVER (PARTITION BY f ORDER BY id) FROM @w');
SELECT differing('SELECT id, row_number() OVER (PARTITION BY p % 5 ORDER BY o + 1, id) FROM @w');

-- other rows
SELECT differing('SELECT id, lag(i) OVER w, lead(n) OVER w, lag(q, 3) OVER w, lead(d, 2, date ''2000-01-01'') OVER w, lag(o, 0) OVER w, lag(s, -2, 9::smallint) OVER w FROM @w WINDOW w AS (PARTITION BY p ORDER BY o, id)');
SELECT differing('SELECT id, lag(i, 5000) OVER w, lead(i, 2000000000) OVER w FROM @w WINDOW w AS (ORDER BY id)');
SELECT differing('SELECT id, lag(n, 1, 0.00) OVER w FROM @w WINDOW w AS (ORDER BY id)');
SELECT differing('SELECT id, lag(n, 1, 0) OVER w FROM @w WINDOW w AS (ORDER BY id)');
SELECT differing('SELECT id, first_value(id) OVER w, last_value(o) OVER w, nth_value(q, 3) OVER w FROM @w WINDOW w AS (PARTITION BY p ORDER BY o, id)');
SELECT differing('SELECT id, first_value(c) OVER w, last_value(id) OVER w, nth_value(n, 2) OVER w FROM @w WINDOW w AS (PARTITION BY p ORDER BY o, id ROWS BETWEEN 2 PRECEDING AND 3 FOLLOWING)');
SELECT differing('SELECT id, first_value(o) OVER w, last_value(o) OVER w FROM @w WINDOW w AS (PARTITION BY p ORDER BY o GROUPS BETWEEN 2 PRECEDING AND 1 PRECEDING)');

-- aggregates over frames
SELECT differing('SELECT id, count(*) OVER w, count(n) OVER w, sum(n) OVER w, sum(i) OVER w, sum(o) OVER w, avg(s) OVER w, min(d) OVER w, max(q) OVER w FROM @w WINDOW w AS (PARTITION BY p ORDER BY o)');
SELECT differing('SELECT id, sum(n) OVER w, avg(n) OVER w, min(i) OVER w, max(n) OVER w FROM @w WINDOW w AS (PARTITION BY p)');
SELECT differing('SELECT id, sum(n) OVER w, avg(i) OVER w, min(q) OVER w, max(d) OVER w, count(o) OVER w FROM @w WINDOW w AS (PARTITION BY p ORDER BY o, id ROWS BETWEEN 3 PRECEDING AND 1 FOLLOWING)');
SELECT differing('SELECT id, sum(n) OVER w, max(i) OVER w FROM @w WINDOW w AS (PARTITION BY p ORDER BY o, id ROWS BETWEEN 2 FOLLOWING AND UNBOUNDED FOLLOWING)');
SELECT differing('SELECT id, sum(n) OVER w, min(i) OVER w FROM @w WINDOW w AS (PARTITION BY p ORDER BY o RANGE BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING)');
SELECT differing('SELECT id, sum(n) OVER w, count(*) OVER w FROM @w WINDOW w AS (PARTITION BY q ORDER BY d GROUPS BETWEEN 2 PRECEDING AND 1 FOLLOWING)');
SELECT differing('SELECT id, sum(n) OVER w, count(*) OVER w FROM @w WINDOW w AS (PARTITION BY q ORDER BY d, id ROWS BETWEEN 5 PRECEDING AND 3 PRECEDING)');
SELECT differing('SELECT id, sum(f) OVER w, avg(f) OVER w FROM @w WINDOW w AS (PARTITION BY p ORDER BY id)');
SELECT differing('SELECT id, sum(f) OVER w FROM @w WINDOW w AS (PARTITION BY p ORDER BY id ROWS BETWEEN 4 PRECEDING AND 2 FOLLOWING)');
SELECT differing('SELECT id, sum(f) OVER w FROM @w WINDOW w AS (PARTITION BY p ORDER BY id ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING)');
SELECT differing('SELECT id, avg(f) OVER w, variance(f) OVER w, stddev_pop(r) OVER w, sum(r) OVER w, avg(r) OVER w FROM @w WINDOW w AS (PARTITION BY p ORDER BY id ROWS BETWEEN 4 PRECEDING AND 2 FOLLOWING)');
SELECT differing('SELECT id, corr(f, r) OVER w, covar_pop(r, f) OVER w, regr_slope(f, r) OVER w, regr_avgx(f, o) OVER w, regr_count(f, r) OVER w FROM @w WINDOW w AS (PARTITION BY p ORDER BY id ROWS 5 PRECEDING)');
SELECT differing('SELECT id, stddev(f) OVER w, sum(r) OVER w, regr_r2(r, f) OVER w FROM @w WINDOW w AS (PARTITION BY p ORDER BY id ROWS BETWEEN 2 FOLLOWING AND UNBOUNDED FOLLOWING)');
SELECT differing('SELECT id, var_pop(f) FILTER (WHERE b) OVER w, stddev(r) OVER w FROM @w WINDOW w AS (PARTITION BY p ORDER BY id ROWS BETWEEN 3 PRECEDING AND 3 FOLLOWING EXCLUDE CURRENT ROW)');
SELECT differing('SELECT id, avg(f) OVER w, corr(f, r) OVER w FROM @w WINDOW w AS (PARTITION BY p ORDER BY id RANGE BETWEEN 100 PRECEDING AND 50 FOLLOWING)');
SELECT differing('SELECT id, regr_sxx(f, r) OVER w, avg(r) OVER w FROM @w WINDOW w AS (PARTITION BY p ORDER BY id GROUPS BETWEEN CURRENT ROW AND 3 FOLLOWING)');
SELECT differing('SELECT id, avg(v) OVER w, var_pop(v) OVER w, sum(v) OVER w FROM (SELECT id, CASE id % 7 WHEN 0 THEN ''NaN'' WHEN 1 THEN ''Infinity'' WHEN 2 THEN ''-0'' WHEN 3 THEN NULL ELSE id::float8 END AS v FROM @w WHERE id < 300) x WINDOW w AS (ORDER BY id ROWS 2 PRECEDING)');
SELECT twins('SELECT var_pop(f * 1e300) OVER (ORDER BY id ROWS 1 PRECEDING) FROM @w');
SELECT differing('SELECT id, sum(n) FILTER (WHERE b) OVER w, count(*) FILTER (WHERE o > 500) OVER w, max(i) FILTER (WHERE s < 0) OVER w FROM @w WINDOW w AS (PARTITION BY p ORDER BY o, id ROWS BETWEEN 4 PRECEDING AND CURRENT ROW)');
SELECT differing('SELECT id, sum(CASE WHEN b THEN n ELSE 1.5 END) OVER (PARTITION BY p ORDER BY id ROWS 3 PRECEDING) FROM @w');

-- frames of values
SELECT differing('SELECT id, sum(n) OVER (ORDER BY o RANGE BETWEEN 10 PRECEDING AND CURRENT ROW) FROM @w');
SELECT differing('SELECT id, count(*) OVER w, min(i) OVER w, max(q) OVER w, first_value(o) OVER w, last_value(o) OVER w FROM @w WINDOW w AS (PARTITION BY p ORDER BY o RANGE BETWEEN 30 PRECEDING AND 50 FOLLOWING)');
SELECT differing('SELECT id, count(*) OVER w, sum(n) OVER w FROM @w WINDOW w AS (PARTITION BY p ORDER BY o DESC NULLS LAST RANGE BETWEEN 30 PRECEDING AND 10 PRECEDING)');
SELECT differing('SELECT id, count(*) OVER w, sum(n) OVER w FROM @w WINDOW w AS (PARTITION BY p ORDER BY o NULLS FIRST RANGE BETWEEN UNBOUNDED PRECEDING AND 10 FOLLOWING)');
SELECT differing('SELECT id, count(*) OVER w, sum(n) OVER w FROM @w WINDOW w AS (PARTITION BY q ORDER BY o DESC RANGE BETWEEN 10 FOLLOWING AND 20 FOLLOWING)');
SELECT differing('SELECT id, count(*) OVER w, sum(o) OVER w FROM @w WINDOW w AS (PARTITION BY q ORDER BY s RANGE BETWEEN 5::smallint PRECEDING AND 7::bigint FOLLOWING)');
SELECT differing('SELECT id, count(*) OVER w FROM @w WINDOW w AS (PARTITION BY q ORDER BY i RANGE BETWEEN 9000000000000000000 PRECEDING AND 3000000021 FOLLOWING)');
SELECT differing('SELECT id, count(*) OVER w, sum(o) OVER w FROM @w WINDOW w AS (PARTITION BY q ORDER BY n RANGE BETWEEN 1.125 PRECEDING AND 3 FOLLOWING)');
SELECT differing('SELECT id, count(*) OVER w, sum(o) OVER w FROM @w WINDOW w AS (PARTITION BY q ORDER BY n DESC RANGE BETWEEN 0 PRECEDING AND 0.5 FOLLOWING)');
SELECT differing('SELECT id, count(*) OVER w, sum(o) OVER w FROM @w WINDOW w AS (PARTITION BY q ORDER BY f RANGE BETWEEN 12345.6 PRECEDING AND 1e4 FOLLOWING)');
SELECT differing('SELECT id, count(*) OVER w, sum(o) OVER w FROM @w WINDOW w AS (PARTITION BY q ORDER BY f DESC RANGE BETWEEN ''Infinity'' PRECEDING AND 1e5 FOLLOWING)');
SELECT differing('SELECT id, count(*) OVER w, sum(o) OVER w FROM @w WINDOW w AS (PARTITION BY p ORDER BY d RANGE BETWEEN ''1 month 3 days'' PRECEDING AND ''36 hours'' FOLLOWING)');
SELECT differing('SELECT id, count(*) OVER w FROM @w WINDOW w AS (PARTITION BY q ORDER BY d DESC RANGE BETWEEN ''10 days'' PRECEDING AND ''1 month'' FOLLOWING)');
SELECT differing('SELECT id, count(*) OVER w FROM @w WINDOW w AS (PARTITION BY p ORDER BY d::timestamp RANGE BETWEEN ''1 month'' PRECEDING AND ''1 day'' FOLLOWING)');
SELECT differing('SELECT id, sum(f) OVER w FROM @w WINDOW w AS (PARTITION BY p ORDER BY id RANGE BETWEEN 100 PRECEDING AND 50 FOLLOWING)');
SELECT differing('SELECT id, count(*) OVER w FROM @w WINDOW w AS (PARTITION BY o ORDER BY o RANGE BETWEEN 1 PRECEDING AND 1 FOLLOWING)');
SELECT differing('SELECT id, nth_value(id, 3) OVER w FROM @w WINDOW w AS (PARTITION BY p ORDER BY id RANGE BETWEEN 200 PRECEDING AND 100 PRECEDING)');
SELECT differing('SELECT v, count(*) OVER w, sum(g) OVER (ORDER BY v, g ROWS 2 PRECEDING) FROM (SELECT id AS g, CASE id % 7 WHEN 0 THEN ''NaN'' WHEN 1 THEN ''Infinity'' WHEN 2 THEN ''-Infinity'' WHEN 3 THEN NULL ELSE id::float8 END AS v FROM @w WHERE id < 100) x WINDOW w AS (ORDER BY v RANGE BETWEEN 5 PRECEDING AND ''Infinity'' FOLLOWING)');

-- rows that are excluded
SELECT differing('SELECT id, sum(n) OVER (ORDER BY id ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING EXCLUDE CURRENT ROW) FROM @w');
SELECT differing('SELECT id, count(*) OVER w, sum(n) OVER w, min(i) OVER w, max(q) OVER w FROM @w WINDOW w AS (PARTITION BY p ORDER BY o RANGE BETWEEN 30 PRECEDING AND 50 FOLLOWING EXCLUDE GROUP)');
SELECT differing('SELECT id, count(*) OVER w, sum(n) OVER w, min(i) OVER w, max(d) OVER w FROM @w WINDOW w AS (PARTITION BY p ORDER BY o GROUPS BETWEEN 3 PRECEDING AND 2 FOLLOWING EXCLUDE TIES)');
SELECT differing('SELECT id, count(*) OVER w, sum(n) OVER w FROM @w WINDOW w AS (PARTITION BY p ORDER BY o, id ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW EXCLUDE CURRENT ROW)');
SELECT differing('SELECT id, count(*) OVER w, sum(n) OVER w FROM @w WINDOW w AS (PARTITION BY p ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING EXCLUDE CURRENT ROW)');
SELECT differing('SELECT id, count(*) OVER w, sum(n) OVER w FROM @w WINDOW w AS (PARTITION BY p RANGE BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING EXCLUDE TIES)');
SELECT differing('SELECT id, sum(f) OVER w FROM @w WINDOW w AS (PARTITION BY p ORDER BY id ROWS BETWEEN 4 PRECEDING AND 2 FOLLOWING EXCLUDE CURRENT ROW)');
SELECT differing('SELECT id, first_value(id) OVER w, last_value(id) OVER w, nth_value(id, 2) OVER w FROM @w WINDOW w AS (PARTITION BY p ORDER BY o, id ROWS BETWEEN 2 PRECEDING AND 3 FOLLOWING EXCLUDE CURRENT ROW)');
SELECT differing('SELECT id, first_value(o) OVER w, last_value(o) OVER w FROM @w WINDOW w AS (PARTITION BY q ORDER BY o GROUPS BETWEEN 1 PRECEDING AND 1 FOLLOWING EXCLUDE GROUP)');
SELECT differing('SELECT b, o, first_value(o) OVER w, nth_value(o, 2) OVER w, last_value(o) OVER w FROM @w WINDOW w AS (PARTITION BY b ORDER BY o ROWS BETWEEN 1 FOLLOWING AND 9 FOLLOWING EXCLUDE TIES)');
SELECT differing('SELECT b, o, first_value(o) OVER w, nth_value(o, 2) OVER w, last_value(o) OVER w FROM @w WINDOW w AS (PARTITION BY b ORDER BY o ROWS BETWEEN 9 PRECEDING AND 1 PRECEDING EXCLUDE TIES)');

-- offsets that are known when the query runs
SELECT differing('SELECT id, count(*) OVER (ORDER BY id ROWS (SELECT 3) PRECEDING) FROM @w');
SET plan_cache_mode = force_generic_plan;
PREPARE rows_of_heap(int, bigint) AS SELECT id, sum(n) OVER w AS s FROM w_heap WINDOW w AS (PARTITION BY p ORDER BY o, id ROWS BETWEEN $1 PRECEDING AND $2 FOLLOWING);
PREPARE rows_of_lake(int, bigint) AS SELECT id, sum(n) OVER w AS s FROM w_lake WINDOW w AS (PARTITION BY p ORDER BY o, id ROWS BETWEEN $1 PRECEDING AND $2 FOLLOWING);
PREPARE range_of_heap(int, numeric) AS SELECT id, sum(o) OVER a AS s, count(*) OVER b AS c FROM w_heap WINDOW a AS (PARTITION BY p ORDER BY o RANGE BETWEEN $1 PRECEDING AND CURRENT ROW), b AS (PARTITION BY q ORDER BY n RANGE BETWEEN CURRENT ROW AND $2 FOLLOWING);
PREPARE range_of_lake(int, numeric) AS SELECT id, sum(o) OVER a AS s, count(*) OVER b AS c FROM w_lake WINDOW a AS (PARTITION BY p ORDER BY o RANGE BETWEEN $1 PRECEDING AND CURRENT ROW), b AS (PARTITION BY q ORDER BY n RANGE BETWEEN CURRENT ROW AND $2 FOLLOWING);
SET lake.engine = force;
CREATE TEMP TABLE rows_heap AS EXECUTE rows_of_heap(2, 3);
CREATE TEMP TABLE rows_lake AS EXECUTE rows_of_lake(2, 3);
CREATE TEMP TABLE range_heap AS EXECUTE range_of_heap(40, 2.5);
CREATE TEMP TABLE range_lake AS EXECUTE range_of_lake(40, 2.5);
SELECT count(*) AS differing FROM ((TABLE rows_heap EXCEPT ALL TABLE rows_lake) UNION ALL (TABLE rows_lake EXCEPT ALL TABLE rows_heap)) x;
SELECT count(*) AS differing FROM ((TABLE range_heap EXCEPT ALL TABLE range_lake) UNION ALL (TABLE range_lake EXCEPT ALL TABLE range_heap)) x;
SELECT sqlstate_of('EXECUTE rows_of_lake(-1, 3)');
SELECT sqlstate_of('EXECUTE range_of_lake(-1, 3)');
RESET lake.engine;
RESET plan_cache_mode;
DEALLOCATE ALL;
DROP TABLE rows_heap, rows_lake, range_heap, range_lake;

-- filters on what windows say
SELECT differing('SELECT * FROM (SELECT id, p, row_number() OVER (PARTITION BY p ORDER BY o, id) AS rn FROM @w) x WHERE rn <= 3');
SELECT differing('SELECT * FROM (SELECT id, p, row_number() OVER (ORDER BY o, id) AS rn FROM @w) x WHERE rn <= 10');
SELECT differing('SELECT * FROM (SELECT id, rank() OVER (PARTITION BY q ORDER BY d) AS r, sum(n) OVER (PARTITION BY p) AS total FROM @w) x WHERE r = 2 AND total > 100');
SELECT differing('SELECT * FROM (SELECT id, count(*) OVER (PARTITION BY p ORDER BY o) AS c, row_number() OVER (ORDER BY id) AS rn FROM @w) x WHERE c <= 20 AND rn < 5000');
SELECT differing('SELECT * FROM (SELECT id, dense_rank() OVER (PARTITION BY p ORDER BY o) AS r FROM @w WHERE b) x WHERE 4 > r');

-- several windows, and windows around other nodes
SELECT differing('SELECT id, row_number() OVER (PARTITION BY p ORDER BY o, id), rank() OVER (PARTITION BY p ORDER BY o), sum(n) OVER (PARTITION BY q ORDER BY id), count(*) OVER () FROM @w');
SELECT differing('SELECT p, sum(n), sum(sum(n)) OVER (ORDER BY p), rank() OVER (ORDER BY sum(n) DESC, p) FROM @w GROUP BY p');
SELECT differing('SELECT p, q, sum(n) * 100 / sum(sum(n)) OVER (PARTITION BY p) FROM @w GROUP BY p, q');
SELECT differing('SELECT a.id, rank() OVER (PARTITION BY a.p ORDER BY b.o) FROM @w a JOIN @w b ON a.id = b.id + 1');
SELECT differing('SELECT p, max(rn) FROM (SELECT p, row_number() OVER (PARTITION BY p ORDER BY id) AS rn FROM @w) x GROUP BY p');
SELECT differing('SELECT DISTINCT p, count(*) OVER (PARTITION BY p) FROM @w');
SELECT differing('SELECT id, row_number() OVER () AS rn FROM (SELECT id FROM @w ORDER BY o DESC, id LIMIT 500) x');
SELECT twins('SELECT id, p, row_number() OVER (PARTITION BY p ORDER BY o, id) FROM @w ORDER BY p, o, id', true);
SELECT twins('SELECT id, sum(n) OVER (ORDER BY id) FROM @w ORDER BY id LIMIT 20', true);
SELECT twins('SELECT id, o, lag(id) OVER (ORDER BY o DESC, id) FROM @w ORDER BY o DESC, id LIMIT 20', true);

-- nothing to compute on
SELECT differing('SELECT id, sum(n) OVER (ORDER BY id), lag(id) OVER (ORDER BY id) FROM @w WHERE id < 0');

-- left to Postgres
SELECT differing('SELECT id, sum(100 / (o - 500)) FILTER (WHERE o <> 500) OVER (ORDER BY id) FROM @w');
SELECT differing('SELECT id, lag(100 / (o - 500)) OVER (ORDER BY id) FROM @w WHERE o <> 500');
SELECT differing('SELECT id, lag(o, p) OVER (ORDER BY id) FROM @w');
SELECT twins('SELECT id, sum(100 / (id - 19990)) OVER (ORDER BY id) FROM @w ORDER BY id LIMIT 3', true);
SELECT twins('SELECT row_number() OVER () FROM @w WHERE 100 / (id - 19990) IS NOT NULL LIMIT 3');
SELECT twins('SELECT * FROM (SELECT row_number() OVER () AS rn FROM @w WHERE 100 / (id - 19990) IS NOT NULL) x WHERE rn <= 3');
-- sums that are too large in rows that Postgres doesn't come to
CREATE TABLE v_heap (id int, f float8);
INSERT INTO v_heap SELECT g, CASE WHEN g > 10 THEN 1.7e308 ELSE g END FROM generate_series(1, 20) g;
CREATE TABLE v_lake (LIKE v_heap) USING iceberg;
INSERT INTO v_lake SELECT * FROM v_heap;
SELECT twins('SELECT id, sum(f) OVER (ORDER BY id) FROM @v ORDER BY id');
SELECT twins('SELECT id, sum(f) OVER (ORDER BY id) FROM @v ORDER BY id LIMIT 3', true);
SELECT twins('SELECT id, avg(f) OVER (ORDER BY id ROWS 3 PRECEDING) FROM @v ORDER BY id LIMIT 3', true);
SELECT twins('SELECT * FROM (SELECT id, avg(f) OVER w, row_number() OVER w AS rn FROM @v WINDOW w AS (ORDER BY id)) x WHERE rn <= 3');
DROP TABLE v_heap, v_lake;
SELECT twins('SELECT ntile(0) OVER (ORDER BY id) FROM @w');
SELECT twins('SELECT nth_value(id, -1) OVER (ORDER BY id) FROM @w');
SELECT twins('SELECT sum(o) OVER (ORDER BY id ROWS -1 PRECEDING) FROM @w');
SELECT twins('SELECT sum(o) OVER (ORDER BY o RANGE -1 PRECEDING) FROM @w');
SELECT twins('SELECT sum(o) OVER (ORDER BY d RANGE ''-1 day'' PRECEDING) FROM @w');
SELECT twins('SELECT sum(o) OVER (ORDER BY f RANGE ''NaN'' PRECEDING) FROM @w');
SELECT twins('SELECT sum(o) OVER (ORDER BY o GROUPS NULL PRECEDING) FROM @w');

-- INTERSECT and EXCEPT
SELECT differing('SELECT p, q FROM @w WHERE id < 9000 INTERSECT SELECT p, q FROM @w WHERE id > 8000');
SELECT differing('SELECT p, q FROM @w WHERE id < 9000 EXCEPT SELECT p, q FROM @w WHERE id % 5 = 0');
SELECT differing('SELECT p, q FROM @w WHERE id < 9000 INTERSECT ALL SELECT p, q FROM @w WHERE id > 8000');
SELECT differing('SELECT p, q FROM @w EXCEPT ALL SELECT p, q FROM @w WHERE id % 3 = 0');
SELECT differing('(SELECT p FROM @w EXCEPT SELECT o FROM @w WHERE o < 20) INTERSECT SELECT s FROM @w');
SELECT differing('SELECT n, d FROM @w EXCEPT SELECT n, d FROM @w WHERE n < 50');
SELECT differing('SELECT c FROM @w EXCEPT ALL SELECT c FROM @w WHERE id % 2 = 0');
SELECT differing('SELECT p FROM @w INTERSECT SELECT p FROM @w WHERE id < 0');
SELECT differing('SELECT p FROM @w EXCEPT ALL SELECT p FROM @w');
SELECT differing('SELECT count(*) FROM (SELECT p, o FROM @w INTERSECT SELECT p, o FROM @w WHERE b) x');
SELECT twins('SELECT p, q FROM @w EXCEPT SELECT p, q FROM @w WHERE id % 5 = 0 ORDER BY 1, 2 LIMIT 30', true);

-- grouping sets
SELECT differing('SELECT p, q, count(*), sum(n) FROM @w GROUP BY ROLLUP (p, q)');
SELECT differing('SELECT p, q, b, count(*), sum(n), min(d), GROUPING(p, q, b) FROM @w GROUP BY CUBE (p, q, b)');
SELECT differing('SELECT p, q, GROUPING(p), GROUPING(q, p), count(*) FROM @w GROUP BY GROUPING SETS ((p), (q), (p), ())');
SELECT differing('SELECT p, q, b, count(*) FROM @w GROUP BY p, ROLLUP (q, b)');
SELECT differing('SELECT p % 5, d, avg(i) FROM @w GROUP BY ROLLUP (p % 5, d) HAVING count(*) > 3 AND GROUPING(d) = 1');
SELECT differing('SELECT p, q, count(*) FROM @w WHERE id < 0 GROUP BY ROLLUP (p, q)');
SELECT differing('SELECT p, count(*), sum(n) FROM @w WHERE id < 0 GROUP BY GROUPING SETS ((p), (), ())');
SELECT differing('SELECT p, q FROM @w GROUP BY CUBE (p, q)');
SELECT differing('SELECT p, GROUPING(p), count(*) FROM @w GROUP BY p');
SELECT differing('SELECT p, q, sum(n), rank() OVER (PARTITION BY GROUPING(p, q) ORDER BY sum(n), p, q) FROM @w GROUP BY ROLLUP (p, q)');
SET enable_hashagg = off;
SELECT differing('SELECT p, q, b, count(*), GROUPING(p, q, b) FROM @w GROUP BY CUBE (p, q, b)');
SELECT twins('SELECT p, q, count(*) FROM @w GROUP BY ROLLUP (p, q) ORDER BY p, q', true);
SELECT twins('SELECT p, q, count(*) FROM @w GROUP BY ROLLUP (p, q) ORDER BY p DESC NULLS LAST, q DESC NULLS LAST', true);
SELECT differing('SELECT p, q FROM @w WHERE id < 9000 INTERSECT SELECT p, q FROM @w WHERE id > 8000');
RESET enable_hashagg;

EXPLAIN (COSTS OFF) SELECT id, row_number() OVER w, sum(n) OVER w FROM w_lake WINDOW w AS (PARTITION BY p ORDER BY o ROWS 3 PRECEDING);
EXPLAIN (COSTS OFF) SELECT * FROM (SELECT id, rank() OVER (PARTITION BY p ORDER BY o) AS r FROM w_lake) x WHERE r <= 3;
EXPLAIN (COSTS OFF) SELECT p FROM w_lake EXCEPT ALL SELECT o FROM w_lake;
EXPLAIN (COSTS OFF) SELECT p, q, GROUPING(q), count(*) FROM w_lake GROUP BY ROLLUP (p, q);
RESET client_min_messages;
DROP FUNCTION differing;
DROP TABLE w_heap, w_lake;
