-- Purpose: correlated subqueries in HAVING, ON, aggregates, window functions and GROUP BY, and LATERAL with count, OFFSET, GROUP BY
-- and DISTINCT, become joins that give what they give in heap; conditions that could raise an error keep them from it.
SET lake.bulk_rows = 10;
CREATE TABLE o_heap (id int, a int, a8 bigint, b int, x int, n numeric(10,2), f float8, s text);
CREATE TABLE o_lake (LIKE o_heap) USING iceberg;
CREATE TABLE i_heap (id int, a int, b int, y numeric(10,2), f float8, s text);
CREATE TABLE i_lake (LIKE i_heap) USING iceberg;
CREATE TABLE z_heap (LIKE i_heap);
CREATE TABLE z_lake (LIKE i_heap) USING iceberg;
-- keys that are null, keys without partners, many partners, NaN and zeros of both signs
INSERT INTO o_heap SELECT g, a, a, g % 7, g % 50, (g % 97) / 2.0, CASE g % 5 WHEN 0 THEN 'NaN' WHEN 1 THEN '-0' WHEN 2 THEN NULL ELSE (g % 9)::float8 END, 'k' || a
FROM (SELECT g, CASE WHEN g % 13 <> 0 THEN g % 40 END AS a FROM generate_series(1, 80) g) v;
INSERT INTO i_heap SELECT g, a, g % 5, (g * 37 % 1000) / 10.0, CASE g % 6 WHEN 0 THEN 'NaN' WHEN 1 THEN '0' WHEN 2 THEN NULL WHEN 3 THEN '-0' ELSE (g % 9)::float8 END, 'k' || a
FROM (SELECT g, CASE WHEN g % 11 <> 0 THEN g % 35 END AS a FROM generate_series(1, 2000) g) v;
INSERT INTO o_lake SELECT * FROM o_heap;
INSERT INTO i_lake SELECT * FROM i_heap;
ANALYZE o_heap, o_lake, i_heap, i_lake, z_heap, z_lake;
-- What a plan has that is made for the engine, however cheap Postgres' own is.
CREATE FUNCTION used(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    line text;
    plan text := '';
BEGIN
    PERFORM set_config('lake.engine', 'force', true);
    FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || query LOOP
        plan := plan || line || E'\n';
    END LOOP;
    RETURN concat_ws(', ', CASE WHEN plan ~ 'SubPlan' THEN 'subplan' END, CASE WHEN plan ~ 'Nested Loop' THEN 'loop' END,
                     CASE WHEN plan ~ '\(Lake\)' THEN 'engine' END);
EXCEPTION WHEN feature_not_supported THEN
    RETURN 'refused';
END $$;

-- HAVING, by what is grouped by
SELECT used('SELECT o.a, sum(o.n) FROM o_lake o GROUP BY o.a HAVING sum(o.n) > (SELECT 0.01 * sum(y) FROM i_lake i WHERE i.a = o.a)');
SELECT twins('SELECT o.a, sum(o.n) FROM @o o GROUP BY o.a HAVING sum(o.n) > (SELECT 0.01 * sum(y) FROM @i i WHERE i.a = o.a)');
SELECT twins('SELECT o.b, sum(o.n), count(*) FROM @o o GROUP BY o.b HAVING count(*) > 10 AND 400 >= (SELECT count(*) FROM @i i WHERE i.b = o.b)');
SELECT twins('SELECT o.b FROM @o o GROUP BY o.b HAVING 0 = (SELECT count(*) FROM @i i WHERE i.b = o.b) ORDER BY sum(o.x) DESC');
SELECT twins('SELECT o.a8, o.s FROM @o o GROUP BY o.s, o.a8 HAVING max(o.n) < (SELECT avg(y) FROM @i i WHERE i.a = o.a8 AND i.s = o.s)');
SELECT twins('SELECT nullif(o.f, 0), count(*) FROM @o o GROUP BY o.f HAVING count(*) < (SELECT count(*) FROM @i i WHERE i.f = o.f)');
SELECT twins('SELECT o.a FROM @o o GROUP BY o.a HAVING coalesce((SELECT max(y) FROM @z i WHERE i.a = o.a), 3) = 3');
SELECT twins('SELECT o.a FROM @o o GROUP BY o.a HAVING max(o.x) NOT IN (SELECT i.b FROM @i i WHERE i.a = o.a AND i.y < 50)');
SELECT twins('SELECT o.a FROM @o o GROUP BY o.a HAVING count(*) = 2 OR sum(o.n) > (SELECT max(y) FROM @i i WHERE i.a = o.a) OR min(o.n) < (SELECT min(y) FROM @i i WHERE i.a = o.a)');
SELECT twins('SELECT o.a, max(o.x) FROM @o o GROUP BY o.a HAVING max(o.n) > (SELECT y FROM @i i WHERE i.a = o.a ORDER BY i.id LIMIT 1)');
-- by aggregates
SELECT used('SELECT o.b, max(o.a) FROM o_lake o GROUP BY o.b HAVING 50 < (SELECT count(*) FROM i_lake i WHERE i.a = max(o.a))');
SELECT twins('SELECT o.b, max(o.a) FROM @o o GROUP BY o.b HAVING 50 < (SELECT count(*) FROM @i i WHERE i.a = max(o.a))');
SELECT twins('SELECT max(o.b), (SELECT count(*) FROM @i i WHERE i.b = max(o.b)) FROM @o o');
SELECT twins('SELECT max(o.b), (SELECT count(*) FROM @i i WHERE i.b = max(o.b)) FROM @o o WHERE o.id < 0');
SELECT twins('SELECT count(*) FROM @o o HAVING 0 < (SELECT count(*) FROM @i i WHERE i.a = max(o.a))');
SELECT twins('SELECT 1 FROM @o o HAVING 0 < (SELECT count(*) FROM @i i)');
-- results over groups
SELECT used('SELECT o.b, count(*), (SELECT count(*) FROM i_lake i WHERE i.b = o.b) FROM o_lake o GROUP BY o.b');
SELECT twins('SELECT o.b, count(*), (SELECT count(*) FROM @i i WHERE i.b = o.b), (SELECT max(y) FROM @i i WHERE i.a = o.b) - (SELECT min(y) FROM @i i WHERE i.a = o.b) FROM @o o GROUP BY o.b');
SELECT twins('SELECT o.b, sum(o.x) * 1.5 + (SELECT sum(y) FROM @i i WHERE i.a = o.b), 100 / (count(*) - 11) FROM @o o GROUP BY o.b HAVING count(*) <> 11 ORDER BY (SELECT count(*) FROM @i i WHERE i.b = o.b) DESC, 1 LIMIT 3');
SELECT twins('SELECT o.b, rank() OVER (ORDER BY count(*), o.b), sum(count(*)) OVER (ORDER BY o.b), (SELECT count(*) FROM @i i WHERE i.b = o.b) FROM @o o GROUP BY o.b');
SELECT twins('SELECT DISTINCT o.b > 2, (SELECT count(*) FROM @i i WHERE i.b = o.b) FROM @o o GROUP BY o.b');
SELECT twins('SELECT o.b % 3, count(*), (SELECT count(*) FROM @i i WHERE i.a = max(o.b)) FROM @o o GROUP BY o.b % 3');
SELECT twins('SELECT v.q FROM (SELECT o.b, 100 / (o.b - 4) AS q FROM @o o GROUP BY o.b HAVING 0 < (SELECT count(*) FROM @i i WHERE i.b = o.b AND i.b <> 4)) v JOIN @o p ON p.b = v.q');
SELECT twins('SELECT v.b FROM (SELECT o.b, count(*) AS c FROM @o o GROUP BY o.b HAVING 100 < (SELECT count(*) FROM @i i WHERE i.b = o.b)) v JOIN @o p ON p.x = v.c');
SELECT twins('SELECT o.id, (SELECT sum(c) FROM (SELECT i.b, count(*) AS c FROM @i i WHERE i.a = o.a GROUP BY i.b HAVING count(*) > (SELECT count(*) FROM @o p WHERE p.b = i.b)) w) FROM @o o WHERE o.id < 20');
SELECT twins('WITH w AS (SELECT * FROM @o) SELECT o.b, count(*), (SELECT count(*) FROM @i i WHERE i.b = o.b) FROM w o GROUP BY o.b');
-- what is grouped by is null in some sets
SELECT used('SELECT o.b, o.a, count(*), (SELECT count(*) FROM i_lake i WHERE i.b = o.b) FROM o_lake o GROUP BY ROLLUP (o.b, o.a)');
SELECT twins('SELECT o.b, o.a, count(*), (SELECT count(*) FROM @i i WHERE i.b = o.b) FROM @o o GROUP BY ROLLUP (o.b, o.a)');
SELECT twins('SELECT o.b, o.a, count(*) FROM @o o GROUP BY CUBE (o.b, o.a) HAVING count(*) > (SELECT 0.01 * count(*) FROM @i i WHERE i.b = o.b)');
SELECT twins('SELECT o.b, sum(o.n * (SELECT count(*) FROM @i i WHERE i.a = o.a)) FROM @o o GROUP BY ROLLUP (o.b)');

SELECT twins('SELECT o.b, percentile_disc((SELECT count(*) FROM @i i WHERE i.b = o.b AND i.id <= 5)) WITHIN GROUP (ORDER BY o.x) FROM @o o WHERE o.b < 5 GROUP BY ROLLUP (o.b)');
SELECT twins('SELECT o.b, percentile_disc((SELECT count(*) FROM @i i WHERE i.b = o.b AND i.id <= 5)) WITHIN GROUP (ORDER BY o.x) FROM @o o GROUP BY o.b');

-- in aggregates, in what is grouped by, in window functions, under DISTINCT
SELECT used('SELECT o.b, sum((SELECT count(*) FROM i_lake i WHERE i.a = o.a)) FROM o_lake o GROUP BY o.b');
SELECT twins('SELECT o.b, sum((SELECT count(*) FROM @i i WHERE i.a = o.a)) FROM @o o GROUP BY o.b');
SELECT twins('SELECT count(*) FILTER (WHERE o.n > (SELECT avg(y) FROM @i i WHERE i.a = o.a)), max(o.n - (SELECT min(y) FROM @i i WHERE i.a = o.a)) FROM @o o');
SELECT twins('SELECT o.b FROM @o o GROUP BY o.b HAVING sum((SELECT count(*) FROM @i i WHERE i.a = o.a)) > 400');
SELECT twins('SELECT o.b, sum((SELECT count(*) FROM @i i WHERE i.a = o.a)), (SELECT count(*) FROM @i i WHERE i.b = o.b) FROM @o o GROUP BY o.b HAVING sum((SELECT count(*) FROM @i i WHERE i.a = o.a)) > (SELECT count(*) FROM @i i WHERE i.b = o.b)');
SELECT used('SELECT (SELECT count(*) FROM i_lake i WHERE i.a = o.a) AS c, count(*) FROM o_lake o GROUP BY 1');
SELECT twins('SELECT (SELECT count(*) FROM @i i WHERE i.a = o.a) AS c, count(*), (SELECT count(*) FROM @i i WHERE i.a = o.a) + 1 FROM @o o GROUP BY (SELECT count(*) FROM @i i WHERE i.a = o.a)');
SELECT twins('SELECT (SELECT max(y) FROM @i i WHERE i.a = o.a) > 99 AS c, count(*) FROM @o o GROUP BY 1 HAVING count(*) > 6');
SELECT used('SELECT o.id, sum((SELECT count(*) FROM i_lake i WHERE i.a = o.a)) OVER (PARTITION BY o.b ORDER BY o.id) FROM o_lake o');
SELECT twins('SELECT o.id, sum((SELECT count(*) FROM @i i WHERE i.a = o.a)) OVER (PARTITION BY o.b ORDER BY o.id) FROM @o o');
SELECT twins('SELECT o.id, rank() OVER (ORDER BY (SELECT max(y) FROM @i i WHERE i.a = o.a) DESC), (SELECT count(*) FROM @i i WHERE i.a = o.a) FROM @o o');
SELECT used('SELECT DISTINCT (SELECT count(*) FROM i_lake i WHERE i.a = o.a) FROM o_lake o');
SELECT twins('SELECT DISTINCT (SELECT count(*) FROM @i i WHERE i.a = o.a) FROM @o o');
SELECT twins('SELECT o.id, (SELECT max(y) FROM @i i WHERE i.a = o.a) - (SELECT min(y) FROM @i i WHERE i.a = o.a), (SELECT max(y) FROM @i i WHERE i.a = o.a) FROM @o o');
SELECT twins('SELECT o.id FROM @o o WHERE (SELECT max(y) FROM @i i WHERE i.a = o.a) - (SELECT min(y) FROM @i i WHERE i.a = o.b) > 99');
SELECT twins('SELECT o.id, sum(100 / (SELECT count(*) FROM @i i WHERE i.a = o.a)) OVER () FROM @o o WHERE o.a < 30');
SELECT twins('SELECT sum(100 / (SELECT count(*) FROM @i i WHERE i.a = o.a)) FROM @o o');

-- in ON: of inner joins, and of outer joins on either side
SELECT used('SELECT o.id, p.id FROM o_lake o JOIN o_lake p ON p.b = o.b AND p.n < (SELECT avg(y) FROM i_lake i WHERE i.a = o.a)');
SELECT twins('SELECT o.id, p.id FROM @o o JOIN @o p ON p.b = o.b AND p.n < (SELECT avg(y) FROM @i i WHERE i.a = o.a)');
SELECT used('SELECT o.id, p.id FROM o_lake o LEFT JOIN o_lake p ON p.b = o.b AND p.n > (SELECT avg(y) FROM i_lake i WHERE i.a = o.a)');
SELECT twins('SELECT o.id, p.id FROM @o o LEFT JOIN @o p ON p.b = o.b AND p.n > (SELECT avg(y) FROM @i i WHERE i.a = o.a)');
SELECT twins('SELECT o.id, p.id FROM @o o LEFT JOIN @o p ON p.b = o.b AND p.x = 3 AND 50 < (SELECT count(*) FROM @i i WHERE i.a = p.a)');
SELECT twins('SELECT o.id, p.id FROM @o o RIGHT JOIN @o p ON p.b = o.b AND o.n < (SELECT min(y) FROM @i i WHERE i.a = o.a AND i.y > 10)');
SELECT twins('SELECT o.id, p.id FROM @o o LEFT JOIN @o p ON p.b = o.b AND 10 > (SELECT count(*) FROM @i i WHERE i.a = o.a AND i.b = p.b)');
SELECT twins('SELECT o.id, p.id FROM @o o FULL JOIN @o p ON p.id = o.id AND p.n > (SELECT avg(y) FROM @i i WHERE i.a = o.a)');
SELECT twins('SELECT o.id, p.id, q.id FROM @o o LEFT JOIN (@o p JOIN @o q ON q.id = p.id AND q.n > (SELECT avg(y) FROM @i i WHERE i.a = p.a)) ON o.id = p.id');
SELECT twins('SELECT o.id, p.id, q.id FROM (@o o JOIN @o p ON p.id = o.id AND p.n > (SELECT min(y) FROM @i i WHERE i.a = o.a)) LEFT JOIN @o q ON q.id = p.id AND q.b NOT IN (SELECT i.b FROM @i i WHERE i.a = p.a)');
SELECT twins('SELECT o.id, p.id FROM @o o JOIN @o p ON p.id = o.id AND p.b NOT IN (SELECT i.b FROM @i i WHERE i.a = o.a AND i.y < 30)');

-- LATERAL that gives one row in any case
SELECT used('SELECT o.id, l.* FROM o_lake o, LATERAL (SELECT count(*) AS c, sum(y) AS y FROM i_lake i WHERE i.a = o.a) l');
SELECT twins('SELECT o.id, l.* FROM @o o, LATERAL (SELECT count(*) AS c, sum(y) AS y FROM @i i WHERE i.a = o.a) l');
SELECT used('SELECT o.id, l.c FROM o_lake o LEFT JOIN LATERAL (SELECT count(*) AS c FROM i_lake i WHERE i.a = o.a) l ON true');
SELECT twins('SELECT o.id, l.c FROM @o o LEFT JOIN LATERAL (SELECT count(*) AS c FROM @i i WHERE i.a = o.a) l ON true');
SELECT twins('SELECT o.id, l.* FROM @o o CROSS JOIN LATERAL (SELECT count(y) AS c, coalesce(sum(y), -1) AS y, max(i.s) AS s, count(*) = 0 AS none FROM @i i WHERE i.a = o.a AND i.y < 5) l');
SELECT twins('SELECT o.id, l.* FROM @o o JOIN LATERAL (SELECT count(*) AS c FROM @i i WHERE i.a = o.a) l ON l.c < 50 OR o.b = 3');
SELECT twins('SELECT o.id, l.* FROM @o o JOIN LATERAL (SELECT sum(y) AS y FROM @i i WHERE i.a = o.a) l ON l.y IS NULL OR l.y > 2900');
SELECT twins('SELECT o.id, l.* FROM @o o, LATERAL (SELECT count(*) AS c FROM @z i WHERE i.a = o.a) l WHERE l.c = 0');
SELECT twins('SELECT o.id, l.* FROM @o o LEFT JOIN LATERAL (SELECT count(*) AS c FROM @i i WHERE i.a = o.a) l ON l.c > 50');
SELECT twins('SELECT l.c, count(*), sum(o.n) FROM @o o, LATERAL (SELECT count(*) AS c FROM @i i WHERE i.a = o.a) l GROUP BY l.c HAVING l.c <> 58');
SELECT twins('SELECT o.id, l.c, m.c FROM @o o, LATERAL (SELECT count(*) AS c FROM @i i WHERE i.a = o.a) l, LATERAL (SELECT count(*) AS c FROM @i i WHERE i.id = l.c) m');
SELECT twins('SELECT o.id, l.c, (SELECT max(i.y) FROM @i i WHERE i.id = l.c) FROM @o o, LATERAL (SELECT count(*) AS c FROM @i i WHERE i.a = o.a) l');
SELECT twins('SELECT o.id, l.c, p.id FROM @o o CROSS JOIN LATERAL (SELECT count(*) AS c FROM @i i WHERE i.a = o.a) l LEFT JOIN @o p ON p.id = l.c');
SELECT twins('SELECT p.id, l.c FROM @o p LEFT JOIN (@o o CROSS JOIN LATERAL (SELECT count(*) AS c FROM @i i WHERE i.a = o.a) l) ON p.id = o.x');
SELECT twins('SELECT j.* FROM (@o o CROSS JOIN LATERAL (SELECT count(*) AS c FROM @i i WHERE i.a = o.a) l) AS j');
SELECT twins('SELECT o.id, l FROM @o o, LATERAL (SELECT count(*) AS c FROM @i i WHERE i.a = o.a) l');
SELECT twins('SELECT o.f, l.* FROM @o o, LATERAL (SELECT count(*) AS c, sum(i.id) AS d FROM @i i WHERE i.f = o.f) l');
SELECT twins('SELECT o.id FROM @o o, LATERAL (SELECT count(*) AS c FROM @i i WHERE i.a = o.a) l WHERE 100 / l.c > 1');
-- OFFSET
SELECT used('SELECT o.id, l.y FROM o_lake o LEFT JOIN LATERAL (SELECT i.y FROM i_lake i WHERE i.a = o.a ORDER BY i.y, i.id LIMIT 2 OFFSET 3) l ON true');
SELECT twins('SELECT o.id, l.y FROM @o o LEFT JOIN LATERAL (SELECT i.y FROM @i i WHERE i.a = o.a ORDER BY i.y, i.id LIMIT 2 OFFSET 3) l ON true');
SELECT twins('SELECT o.id, l.y FROM @o o, LATERAL (SELECT i.y FROM @i i WHERE i.a = o.a ORDER BY i.y, i.id OFFSET 55) l');
SELECT twins('SELECT o.id, l.y FROM @o o, LATERAL (SELECT i.y FROM @i i WHERE i.a = o.a ORDER BY i.y, i.id LIMIT 9223372036854775807 OFFSET 57) l');
SELECT twins('SELECT o.id, (SELECT i.y FROM @i i WHERE i.a = o.a ORDER BY i.y, i.id LIMIT 1 OFFSET 56) FROM @o o');
SELECT twins('SELECT o.id FROM @o o, LATERAL (SELECT i.y FROM @i i WHERE i.a = o.a ORDER BY i.y, i.id LIMIT 2 OFFSET -1) l');
-- GROUP BY and DISTINCT
SELECT used('SELECT o.id, l.* FROM o_lake o, LATERAL (SELECT i.b, count(*) AS c FROM i_lake i WHERE i.a = o.a GROUP BY i.b) l');
SELECT twins('SELECT o.id, l.* FROM @o o, LATERAL (SELECT i.b, count(*) AS c FROM @i i WHERE i.a = o.a GROUP BY i.b) l');
SELECT twins('SELECT o.id, l.* FROM @o o LEFT JOIN LATERAL (SELECT i.b, sum(y) AS y FROM @i i WHERE i.a = o.a8 GROUP BY i.b HAVING count(*) > 11) l ON l.b < o.b');
SELECT twins('SELECT o.id, l.* FROM @o o, LATERAL (SELECT count(*) AS c FROM @i i WHERE i.a = o.a GROUP BY i.b, i.f) l');
SELECT twins('SELECT o.id, l.* FROM @o o, LATERAL (SELECT i.a, max(y) AS y FROM @i i WHERE i.a = o.a GROUP BY i.a) l');
SELECT used('SELECT o.id, l.* FROM o_lake o, LATERAL (SELECT DISTINCT i.b FROM i_lake i WHERE i.a = o.a AND i.y < 20) l');
SELECT twins('SELECT o.id, l.* FROM @o o, LATERAL (SELECT DISTINCT i.b FROM @i i WHERE i.a = o.a AND i.y < 20) l');
SELECT twins('SELECT o.id, l.* FROM @o o LEFT JOIN LATERAL (SELECT DISTINCT i.a, i.b FROM @i i WHERE i.a = o.a AND i.b = o.b) l ON true');
SELECT twins('SELECT o.id, l.* FROM @o o LEFT JOIN LATERAL (SELECT DISTINCT count(*) FROM @i i WHERE i.a = o.a GROUP BY i.b) l ON true');
SELECT twins('SELECT o.id, l.* FROM @o o, LATERAL (SELECT i.b, sum(100 / (i.a - 30)) FROM @i i WHERE i.a = o.a GROUP BY i.b) l WHERE o.a < 30');
-- grouped by what can't be sorted
SELECT twins('SELECT o.id, l.* FROM @o o, LATERAL (SELECT count(*) AS c FROM @i i WHERE i.a = o.a GROUP BY i.b::text::xid) l');
SELECT twins('SELECT o.id FROM @o o WHERE o.x < (SELECT avg(y) FROM @i i WHERE i.a = o.a) AND o.b IN (SELECT count(*) FROM @i i GROUP BY i.b::text::xid)');

-- a row by its key
CREATE TABLE k_heap (id int PRIMARY KEY, f float8, s varchar(9), y numeric(10,2));
CREATE TABLE k_lake (id int PRIMARY KEY, f float8, s varchar(9), y numeric(10,2)) USING iceberg;
INSERT INTO k_heap SELECT g, CASE g WHEN 1 THEN float8 'NaN' WHEN 2 THEN '-0' ELSE g END, 'k' || g, CASE WHEN g % 4 <> 0 THEN g / 2.0 END FROM generate_series(1, 33) g;
INSERT INTO k_lake SELECT * FROM k_heap;
CREATE UNIQUE INDEX k_heap_f ON k_heap (f);
CREATE UNIQUE INDEX k_lake_f ON k_lake (f);
CREATE UNIQUE INDEX k_heap_s ON k_heap (s);
CREATE UNIQUE INDEX k_lake_s ON k_lake (s);
CREATE UNIQUE INDEX k_heap_part ON k_heap (y) WHERE id > 10;
CREATE UNIQUE INDEX k_lake_part ON k_lake (y) WHERE id > 10;
ANALYZE k_heap, k_lake;
SELECT used('SELECT o.id, (SELECT k.y FROM k_lake k WHERE k.id = o.a) FROM o_lake o');
SELECT twins('SELECT o.id, (SELECT k.y FROM @k k WHERE k.id = o.a), (SELECT k.s FROM @k k WHERE o.a8 = k.id AND k.y > 3) FROM @o o');
SELECT twins('SELECT o.id, (SELECT k.id FROM @k k WHERE k.f = o.f), (SELECT k.id FROM @k k WHERE k.s = o.s) FROM @o o');
SELECT twins('SELECT o.id FROM @o o WHERE o.n > (SELECT k.y FROM @k k WHERE k.id = o.a)');
SELECT twins('SELECT o.id FROM @o o WHERE (SELECT k.y FROM @k k WHERE k.id = o.a AND k.s = o.s) IS NULL OR o.b = 1');
SELECT twins('SELECT o.b, sum((SELECT k.y FROM @k k WHERE k.id = o.a)) FROM @o o GROUP BY o.b HAVING max(o.x) > (SELECT k.y FROM @k k WHERE k.id = o.b)');
SELECT twins('SELECT o.id, (SELECT k.y FROM @k k WHERE k.id = 7 AND k.y > o.n) FROM @o o');
SELECT twins('SELECT o.id, (SELECT k.y FROM @k k WHERE k.id = 7 AND k.s = o.s) FROM @o o');
SELECT twins('SELECT o.id, (SELECT 100 / (k.id - 3) FROM @k k WHERE k.id = o.a) FROM @o o WHERE o.a > 3');
SELECT twins('SELECT o.id, (SELECT k.id FROM @k k WHERE k.y = o.n) FROM @o o');
INSERT INTO k_heap SELECT -g, -g, 'm' || g, 7 FROM generate_series(1, 2) g;
INSERT INTO k_lake SELECT -g, -g, 'm' || g, 7 FROM generate_series(1, 2) g;
SELECT twins('SELECT o.id, (SELECT k.id FROM @k k WHERE k.y = o.n) FROM @o o');
SELECT twins('SELECT o.id, (SELECT k.id FROM @k k WHERE k.id < o.a) FROM @o o');
-- the proof goes with its index
PREPARE g2 AS SELECT count((SELECT k.y FROM k_lake k WHERE k.id = o.a)) FROM o_lake o;
EXECUTE g2;
ALTER TABLE k_lake DROP CONSTRAINT k_lake_pkey;
EXECUTE g2;
INSERT INTO k_lake VALUES (5, 1000, 'again', 1);
EXECUTE g2;
DEALLOCATE g2;
DROP TABLE k_heap, k_lake;

-- errors that a subquery in another place would let through, or keep back
SELECT used('SELECT o.id FROM o_lake o JOIN o_lake p ON 100 / (o.b - 3) > p.b - 50 WHERE 0 = (SELECT count(*) FROM i_lake i WHERE i.b = o.b AND i.b = 3)');
SELECT twins('SELECT count(*) FROM @o o JOIN @o p ON 100 / (o.b - 3) > p.b - 50 WHERE 0 = (SELECT count(*) FROM @i i WHERE i.b = o.b AND i.b = 3)');
SELECT twins('SELECT count(*) FROM (SELECT 100 / (o.b - 3) AS q FROM @o o WHERE 0 = (SELECT count(*) FROM @i i WHERE i.b = o.b AND i.b = 3)) v JOIN @o p ON p.b = v.q');
SELECT twins('SELECT count(*) FROM @o p LEFT JOIN (SELECT o.id, 100 / (o.b - 3) AS q FROM @o o WHERE 0 = (SELECT count(*) FROM @i i WHERE i.b = o.b AND i.b = 3)) v ON v.id = p.id WHERE v.q IS NULL');
SELECT twins('SELECT o.id FROM @o o WHERE o.id > (SELECT p.id FROM @o p WHERE p.x = o.x) AND o.n < (SELECT avg(y) FROM @i i WHERE i.a = o.a)');
-- errors that would be lost if rows weren't read that nothing is joined with
SELECT twins('SELECT o.id FROM @o o WHERE 100 / (o.b - 3) > 1 AND o.x < (SELECT avg(y) FROM @z i WHERE i.a = o.a)');
SELECT twins('SELECT o.id, p.id FROM @o o JOIN @o p ON p.id = o.id AND o.x < (SELECT avg(y) FROM @z i WHERE i.a = o.a) WHERE 100 / (o.b - 3) > 1');
SELECT twins('SELECT o.b, sum(100 / (o.b - 3)) FROM @o o GROUP BY o.b HAVING max(o.n) < (SELECT avg(y) FROM @z i WHERE i.a = o.b)');
SELECT twins('SELECT o.id, l.y FROM @o o, LATERAL (SELECT i.y FROM @z i WHERE i.a = o.a ORDER BY i.id LIMIT 1) l WHERE 100 / (o.b - 3) > 1');
-- a condition on one table comes first in any case; so does what is asked once
SELECT used('SELECT o.id FROM o_lake o JOIN o_lake p ON p.id = o.id WHERE o.x / 2 > 3 AND o.x < (SELECT avg(y) FROM i_lake i WHERE i.a = o.a)');
SELECT twins('SELECT o.id FROM @o o JOIN @o p ON p.id = o.id WHERE o.x / 2 > 3 AND o.x < (SELECT avg(y) FROM @i i WHERE i.a = o.a)');
SELECT used('SELECT o.id FROM o_lake o JOIN o_lake p ON p.id = o.id WHERE o.b = (SELECT DISTINCT b FROM o_lake WHERE id = 3) AND o.x < (SELECT avg(y) FROM i_lake i WHERE i.a = o.a)');
SELECT twins('SELECT o.id FROM @o o JOIN @o p ON p.id = o.id WHERE o.b = (SELECT DISTINCT b FROM @o WHERE id = 3) AND o.x < (SELECT avg(y) FROM @i i WHERE i.a = o.a)');
SELECT twins('SELECT o.id FROM @o o JOIN @o p ON p.id = o.id WHERE o.b = (SELECT DISTINCT b FROM @o WHERE id < 3) AND o.x < (SELECT avg(y) FROM @i i WHERE i.a = o.a)');
-- a sum that might not fit
SELECT used('SELECT o.id, p.id FROM o_lake o JOIN o_lake p ON p.id = o.id + 60 WHERE o.x < (SELECT avg(y) FROM i_lake i WHERE i.a = o.a)');
SELECT twins('SELECT o.id, p.id FROM @o o JOIN @o p ON p.id = o.id + 60 WHERE o.x < (SELECT avg(y) FROM @i i WHERE i.a = o.a)');
-- results of views and unions are evaluated last
CREATE VIEW shown AS SELECT o.id, o.x / 2 AS h FROM o_lake o WHERE o.x < (SELECT avg(y) FROM i_lake i WHERE i.a = o.a);
SELECT used('SELECT * FROM shown');
SELECT used('SELECT o.x / 2 FROM o_lake o WHERE o.x < (SELECT avg(y) FROM i_lake i WHERE i.a = o.a) UNION ALL SELECT o.x / 3 FROM o_lake o');
DROP VIEW shown;

-- too many of them
SELECT used('SELECT o.id FROM o_lake o WHERE ' || string_agg(format('o.x < (SELECT avg(y) FROM i_lake i WHERE i.a = o.a AND i.id < %s)', g), ' OR ')) FROM generate_series(1, 20) g;
SELECT used('SELECT o.id FROM o_lake o WHERE ' || string_agg(format('o.x < (SELECT avg(y) FROM i_lake i WHERE i.a = o.a AND i.id < %s)', g), ' OR ')) FROM generate_series(1, 101) g;
SELECT twins('SELECT o.id FROM @o o WHERE o.id > 3 OR ' || string_agg(format('o.x < (SELECT avg(y) FROM @i i WHERE i.a = o.a AND i.id < %s)', g), ' OR ')) FROM generate_series(1, 1000) g;
-- more aggregates than a row has columns
SELECT twins('SELECT o.b FROM @o o GROUP BY o.b HAVING count(*) < (SELECT count(*) FROM @i i WHERE i.b = o.b) OR ' || string_agg(format('sum(o.x + %s) = 0', g), ' OR ')) FROM generate_series(1, 1700) g;

-- row security and locks: left alone
SELECT twins('SELECT o.b, count(*) FROM (SELECT * FROM @o ORDER BY id FOR UPDATE) o GROUP BY o.b HAVING count(*) > (SELECT count(*) FROM @z i WHERE i.b = o.b)');
CREATE VIEW barrier_heap WITH (security_barrier) AS SELECT * FROM o_heap WHERE id < 60;
CREATE VIEW barrier_lake WITH (security_barrier) AS SELECT * FROM o_lake WHERE id < 60;
SELECT twins('SELECT o.b, count(*) FROM @barrier o GROUP BY o.b HAVING count(*) > (SELECT 0.01 * count(*) FROM @i i WHERE i.b = o.b)');
SELECT twins('SELECT o.id, l.c FROM @barrier o, LATERAL (SELECT count(*) AS c FROM @i i WHERE i.a = o.a) l');
DROP VIEW barrier_heap, barrier_lake;
-- volatile
SELECT twins('SELECT o.b FROM @o o GROUP BY o.b HAVING random() < 2 AND count(*) < (SELECT count(*) FROM @i i WHERE i.b = o.b AND random() < 2)');
-- rights are those of the tables
GRANT SELECT ON o_lake TO regress_lake_user;
SET ROLE regress_lake_user;
SELECT o.b FROM o_lake o GROUP BY o.b HAVING count(*) < (SELECT count(*) FROM i_lake i WHERE i.b = o.b) ORDER BY 1;
RESET ROLE;
REVOKE SELECT ON o_lake FROM regress_lake_user;
GRANT SELECT ON i_lake TO regress_lake_user;
SET ROLE regress_lake_user;
SELECT o.b FROM o_lake o GROUP BY o.b HAVING count(*) < (SELECT count(*) FROM i_lake i WHERE i.b = o.b) ORDER BY 1;
RESET ROLE;
-- parameters, and plans that are kept
PREPARE g1(int) AS SELECT o.b, count(*) FROM o_lake o GROUP BY o.b HAVING count(*) + $1 > (SELECT count(*) FROM i_lake i WHERE i.b = o.b) ORDER BY o.b;
SET plan_cache_mode = force_generic_plan;
EXECUTE g1(0);
EXECUTE g1(400);
RESET plan_cache_mode;
DEALLOCATE g1;
DROP TABLE o_heap, o_lake, i_heap, i_lake, z_heap, z_lake;
DROP FUNCTION used;
