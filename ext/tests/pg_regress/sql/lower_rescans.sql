-- Purpose: parts in the engine that are run again, for the steps of a recursion and for outer rows, give heap's rows
-- each time; where an index is cheaper they aren't.
SET lake.bulk_rows = 10;
CREATE TABLE e_heap (id int, parent int, w numeric(10,2), t text COLLATE "C");
INSERT INTO e_heap SELECT g, nullif(g / 3, 0), g * 7919 % 1000 / 4.0, 't' || g % 101 FROM generate_series(1, 6000) g;
CREATE TABLE e_lake (LIKE e_heap) USING iceberg;
INSERT INTO e_lake SELECT * FROM e_heap WHERE id <= 4000;
SET lake.bulk_rows = -1;
INSERT INTO e_lake SELECT * FROM e_heap WHERE id > 4000;
-- a circle
INSERT INTO e_heap VALUES (10001, 10003, 1, 'a'), (10002, 10001, 2, 'b'), (10003, 10002, 3, 'c');
INSERT INTO e_lake SELECT * FROM e_heap WHERE id > 10000;
ANALYZE e_heap, e_lake;

-- recursion: where it begins, its steps, what is done with its rows
SELECT twins('WITH RECURSIVE r AS (SELECT id, parent, 0 AS depth FROM @e WHERE id = 1
              UNION ALL SELECT e.id, e.parent, r.depth + 1 FROM @e e JOIN r ON e.parent = r.id) SELECT * FROM r');
SELECT twins('WITH RECURSIVE r AS (SELECT id, w::numeric AS w FROM @e WHERE parent IS NULL
              UNION ALL SELECT e.id, r.w + e.w FROM r JOIN @e e ON e.parent = r.id) SELECT count(*), sum(w), max(id) FROM r');
SELECT twins('WITH RECURSIVE r AS (SELECT id FROM @e WHERE id = 10001
              UNION SELECT e.id FROM @e e JOIN r ON e.parent = r.id) SELECT id FROM r');
SELECT twins('WITH RECURSIVE r AS (SELECT parent AS id, count(*) AS n FROM @e GROUP BY parent HAVING max(w) > 249
              UNION SELECT e.parent, r.n FROM @e e JOIN r ON e.id = r.id WHERE e.parent IS NOT NULL) SELECT * FROM r');
SELECT twins('WITH RECURSIVE r AS (SELECT 1 AS id
              UNION ALL (SELECT e.id FROM @e e JOIN r ON e.parent = r.id ORDER BY e.w DESC, e.id LIMIT 5)) SELECT id FROM r');
SELECT twins('WITH RECURSIVE r AS (SELECT 1 AS id, 0 AS depth
              UNION ALL SELECT r.id * 3, r.depth + 1 FROM r WHERE EXISTS (SELECT FROM @e e WHERE e.parent = r.id)) SELECT * FROM r');
SELECT twins('WITH RECURSIVE r AS (SELECT 1 AS id
              UNION ALL SELECT id + 1 FROM r WHERE id < (SELECT count(*) FROM @e WHERE w < 2)) SELECT count(*), max(id) FROM r');
SELECT twins('WITH RECURSIVE r AS (SELECT id, parent FROM @e WHERE id = 5000
              UNION ALL SELECT e.id, e.parent FROM @e e JOIN r ON e.id = r.parent)
              SELECT e.t, count(*), sum(e.w) FROM @e e JOIN r ON e.id % 50 = r.id % 50 GROUP BY e.t');
SELECT twins('WITH RECURSIVE r AS (SELECT id, parent FROM @e WHERE id = 5000
              UNION ALL SELECT e.id, e.parent FROM @e e JOIN r ON e.id = r.parent) SELECT a.id, b.id FROM r a JOIN r b ON a.parent = b.id');
SELECT twins('SELECT g, (WITH RECURSIVE r AS (SELECT id FROM @e WHERE parent = g
              UNION ALL SELECT e.id FROM @e e JOIN r ON e.parent = r.id) SELECT count(*) FROM r) FROM generate_series(1, 900, 300) g');
SELECT twins('SELECT g, x.* FROM generate_series(1, 900, 300) g, LATERAL (WITH RECURSIVE r AS (SELECT id, w FROM @e WHERE id = g
              UNION ALL SELECT e.id, e.w FROM @e e JOIN r ON e.parent = r.id WHERE e.w > g / 10.0) SELECT count(*), sum(w) FROM r) x');
SET enable_hashjoin = off;
SELECT twins('WITH RECURSIVE r AS (SELECT id, parent, 0 AS depth FROM @e WHERE id = 1
              UNION ALL SELECT e.id, e.parent, r.depth + 1 FROM @e e JOIN r ON e.parent = r.id) SELECT * FROM r');
SET enable_mergejoin = off;
SELECT twins('WITH RECURSIVE r AS (SELECT id, parent, 0 AS depth FROM @e WHERE id = 1
              UNION ALL SELECT e.id, e.parent, r.depth + 1 FROM @e e JOIN r ON e.parent = r.id WHERE r.depth < 4) SELECT * FROM r');
RESET enable_hashjoin;
RESET enable_mergejoin;

-- once for each outer row
SELECT twins('SELECT o.id, (SELECT max(e.w) FROM @e e WHERE e.parent < o.id AND e.id > o.parent) FROM @e o WHERE o.id % 997 = 3');
SELECT twins('SELECT o.id FROM @e o WHERE o.id % 499 = 3 AND o.w < (SELECT avg(e.w) FROM @e e WHERE e.id % 10 = o.id % 10 OR e.parent = o.id)');
SELECT twins('SELECT o.id FROM @e o WHERE o.id % 499 = 3 AND (o.w > 200 OR EXISTS (SELECT FROM @e e WHERE e.parent > o.id AND e.w < o.w - 30))');
SELECT twins('SELECT o.id, o.id NOT IN (SELECT e.parent FROM @e e WHERE e.w > o.w AND e.parent IS NOT NULL) FROM @e o WHERE o.id % 997 = 3');
SELECT twins('SELECT o.id, ARRAY(SELECT e.id FROM @e e WHERE e.parent = o.parent ORDER BY e.id) FROM @e o WHERE o.id % 997 = 3');
SELECT twins('SELECT o.id, l.* FROM (SELECT * FROM @e WHERE id % 997 = 3) o, LATERAL (SELECT e.id AS child FROM @e e WHERE e.parent > o.parent ORDER BY e.id DESC LIMIT 2) l');
SELECT twins('SELECT o.id, l.* FROM (SELECT * FROM @e WHERE id % 997 = 3) o LEFT JOIN LATERAL (SELECT e.t, sum(e.w) AS s FROM @e e WHERE e.parent > o.id * 10 GROUP BY e.t HAVING count(*) > 8) l ON l.s > o.w');
SELECT twins('SELECT o.id, l.* FROM (SELECT * FROM @e WHERE id % 997 = 3) o, LATERAL (SELECT DISTINCT ON (e.t) e.t, e.id FROM @e e WHERE e.w > o.w ORDER BY e.t, e.id) l');
SELECT twins('SELECT k, x.* FROM (VALUES (0), (3), (10), (3)) v(k), LATERAL (SELECT count(*), sum(s * z.id) FROM (SELECT e.id, sum(e.w) OVER (ORDER BY e.id ROWS k PRECEDING) AS s FROM @e e WHERE e.id < 2000) z) x');
SELECT twins('SELECT k, x.* FROM (VALUES (0), (3), (-1)) v(k), LATERAL (SELECT count(*), sum(s) FROM (SELECT sum(e.w) OVER (ORDER BY e.id RANGE k PRECEDING) AS s FROM @e e WHERE e.id < 2000) z) x');
SELECT twins('SELECT a, b, (SELECT count(*) FROM @e x JOIN @e y ON x.id = y.parent WHERE x.w < a AND (SELECT min(z.id) FROM @e z WHERE z.w > b AND z.id > a) < y.id) FROM (VALUES (10, 20), (100, 20), (NULL, 5)) v(a, b)');
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT g, (SELECT sum(e.w) FROM e_lake e WHERE e.parent > g) = (SELECT sum(e.w) FROM e_heap e WHERE e.parent > g) AS same FROM generate_series(0, 900, 300) g;
FETCH 2 FROM c;
FETCH BACKWARD 1 FROM c;
FETCH ALL FROM c;
COMMIT;

-- "force" says why
CREATE FUNCTION refused_for(query text, reason text) RETURNS bool LANGUAGE plpgsql AS $$
DECLARE
    detail text;
BEGIN
    PERFORM set_config('lake.engine', 'force', true);
    EXECUTE query;
    RETURN false;
EXCEPTION WHEN feature_not_supported THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
    RETURN strpos(detail, reason) > 0;
END $$;
SELECT refused_for('SELECT o.id, l.* FROM (SELECT * FROM e_lake WHERE id % 997 = 3) o, LATERAL (SELECT e.id AS child FROM e_lake e WHERE e.parent > o.parent ORDER BY e.id DESC LIMIT 2) l', 'a nested loop with parameters is not lowered');
SELECT refused_for('WITH RECURSIVE r AS (SELECT id, w::numeric AS w FROM e_lake WHERE id = 1 UNION ALL SELECT e.id, r.w + e.w FROM e_lake e JOIN r ON e.parent = r.id) SELECT count(*) FROM r', 'a numeric that is computed in the steps of a recursion');
DROP FUNCTION refused_for;
RESET lake.engine;

-- an index is cheaper than a part in the engine for each outer row
SET lake.bulk_rows = 10;
CREATE TABLE i_heap (id int, parent int, w numeric(10,2));
CREATE TABLE i_lake (LIKE i_heap) USING iceberg;
INSERT INTO i_heap SELECT g, g / 3, g * 7919 % 1000 / 4.0 FROM generate_series(1, 200000) g;
INSERT INTO i_lake SELECT * FROM i_heap;
CREATE INDEX i_heap_parent ON i_heap (parent);
CREATE INDEX i_lake_parent ON i_lake (parent);
ANALYZE i_heap, i_lake;
CREATE FUNCTION used(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    line text;
    plan text := '';
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || query LOOP
        plan := plan || line || E'\n';
    END LOOP;
    RETURN concat_ws(', ', CASE WHEN plan ~ 'Index|Bitmap' THEN 'index' END, CASE WHEN plan ~ 'SubPlan' THEN 'subplan' END,
                     CASE WHEN plan ~ '\(Lake\)' THEN 'engine' END);
END $$;
SELECT used('SELECT g, (SELECT count(*) FROM i_lake e WHERE e.parent = g AND e.w > g / 10.0) FROM generate_series(1, 300) g');
SELECT twins('SELECT g, (SELECT count(*) FROM @i e WHERE e.parent = g AND e.w > g / 10.0) FROM generate_series(1, 300) g');
SELECT twins('SELECT g, x.* FROM generate_series(1, 50) g, LATERAL (SELECT count(*), sum(e.w) FROM @i e WHERE e.parent = g AND e.w > g / 10.0) x');
SELECT twins('SELECT g, e.id FROM generate_series(1, 300) g LEFT JOIN @i e ON e.parent = g AND e.w > g / 10.0');
DROP FUNCTION used;
DROP TABLE e_heap, e_lake, i_heap, i_lake;
