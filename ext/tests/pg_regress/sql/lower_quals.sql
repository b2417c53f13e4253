-- Purpose: what can raise an error is evaluated for the rows for which heap evaluates it, and no others.
\pset format unaligned
\pset tuples_only on
CREATE TABLE q_heap (id int, t text COLLATE "C", f double precision, n int);
CREATE TABLE q_lake (LIKE q_heap) USING iceberg;
INSERT INTO q_heap VALUES (1, 'Alpha', 1.5, 1), (2, NULL, 'NaN', 0), (3, 'beta', 'NaN', 0), (4, 'ALPINE', 7.5, 4), (5, NULL, 2.5, NULL),
    (6, 'alphb', 'Infinity', 1);
SET lake.bulk_rows = 0;
INSERT INTO q_lake SELECT * FROM q_heap WHERE id % 2 = 0;
SET lake.bulk_rows = -1;
INSERT INTO q_lake SELECT * FROM q_heap WHERE id % 2 = 1;
ANALYZE q_heap, q_lake;

-- A condition that is null ends those of a row as one that is false does.
SELECT twins('SELECT id FROM @q EXCEPT SELECT id FROM @q WHERE t ILIKE ''al%'' AND width_bucket(f, 0, 10, 5) > 0');
SET lake.engine = force;
SELECT id FROM q_lake EXCEPT SELECT id FROM q_lake WHERE t ILIKE 'al%' AND width_bucket(f, 0, 10, 5) > 0 ORDER BY id;
SELECT count(*) FROM q_lake WHERE t ILIKE 'al%' AND width_bucket(f, 0, 10, 5) > 1;
RESET lake.engine;
SELECT twins('SELECT n, count(*) FROM @q WHERE t > ''B'' AND 10 / n > 1 GROUP BY n');
SELECT twins('SELECT n, count(*) FROM @q WHERE t < ''B'' AND 10 / n > 1 GROUP BY n');
-- Neither true nor false goes on within an AND that is part of a condition.
SELECT twins('SELECT count(*) FROM @q WHERE (t = ''x'' AND 10 / n > 1) OR id > 100');
SELECT twins('SELECT count(*) FROM @q WHERE (t = ''x'' AND 10 / n > 1) IS NOT TRUE');
SELECT twins('SELECT count(*) FROM @q WHERE CASE WHEN t = ''x'' AND 10 / n > 1 THEN false ELSE true END');
SELECT twins('SELECT count(*) FILTER (WHERE t = ''x'' AND 10 / n > 1) FROM @q');
-- Below and above a subquery, of groups, and of pairs.
SELECT twins('SELECT count(*) FROM (SELECT * FROM @q WHERE t > ''B'' OFFSET 0) s WHERE 10 / n > 1');
SELECT twins('SELECT t, sum(n) FROM @q GROUP BY t HAVING max(t) < ''B'' AND 10 / sum(n) > 1');
SELECT twins('SELECT a.id, b.id FROM @q a JOIN @q b ON a.n = b.n AND a.t < b.t AND 10 / (a.n * b.n) > 1');
SELECT twins('SELECT a.id, b.id FROM @q a JOIN @q b ON a.n = b.n AND a.t <= b.t AND 10 / (a.n * b.n) > 1');
-- A condition behind one that raises an error leaves out no rows before it does.
SELECT twins('SELECT id FROM @q WHERE 10 / n > 1 AND (id > 100 OR id < -100 OR id = 0)');
SELECT twins('SELECT count(*) FROM @q WHERE 10 / n > 1 AND (id > 100 OR id < -100 OR id = 0)');
SELECT twins('SELECT id FROM @q WHERE id > 100 AND 10 / n > 1');
-- The rows of a sublink that nobody asks for.
SELECT twins('SELECT id FROM @q WHERE id < 0 AND n NOT IN (SELECT 10 / n FROM @q)');
SET lake.engine = force;
SELECT sqlstate_of('SELECT count(*) FROM q_lake WHERE id < 0 AND n NOT IN (SELECT 10 / n FROM q_heap)');
RESET lake.engine;
-- A column that isn't used is computed nevertheless.
SELECT twins('WITH c AS MATERIALIZED (SELECT id, 10 / n AS q FROM @q) SELECT count(*) FROM c');
SELECT twins('WITH c AS MATERIALIZED (SELECT id, 10 / n AS q FROM @q WHERE n > 0) SELECT count(*) FROM c');
-- Groups that come after those that a LIMIT wants aren't aggregated.
SET enable_hashagg = off;
SELECT twins('SELECT n, sum(10 / n) FROM @q GROUP BY n ORDER BY n DESC LIMIT 2', true);
SELECT twins('SELECT n, sum(10 / n) FROM @q GROUP BY n ORDER BY n DESC LIMIT (SELECT 2)', true);
SELECT twins('WITH c AS MATERIALIZED (SELECT n, sum(10 / n) FROM @q GROUP BY n ORDER BY n DESC) SELECT * FROM c LIMIT 2', true);
-- Nor are rows of another table computed.
SELECT twins('SELECT count(q) FROM (SELECT q FROM (SELECT id, 1 AS q FROM @q UNION ALL SELECT id, 10 / n FROM q_heap) u LIMIT 3) l');
-- Nor are those that come after the end of the other side of a merge join.
SET enable_hashjoin = off;
SET enable_nestloop = off;
SELECT twins('SELECT a.n, a.s FROM (SELECT n, sum(10 / (n - 4)) AS s FROM @q GROUP BY n) a JOIN (VALUES (0), (-1)) v (n) ON a.n = v.n');
RESET enable_hashjoin;
RESET enable_nestloop;
RESET enable_hashagg;
DROP TABLE q_heap, q_lake;
