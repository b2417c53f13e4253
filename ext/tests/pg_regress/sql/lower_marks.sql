-- Purpose: x IN (SELECT …) under OR, NOT and CASE, in results and aggregates, and EXISTS under OR, are columns in the
-- engine, with heap's true, false and null.
SET lake.bulk_rows = 10;
CREATE TABLE m_heap (id int, k int, j int, t text COLLATE "C", n numeric(10,2), f float8);
CREATE TABLE m_lake (LIKE m_heap) USING iceberg;
CREATE TABLE s_heap (a int, b int, u text COLLATE "C", m numeric(12,3), g float8);
CREATE TABLE s_lake (LIKE s_heap) USING iceberg;
-- w: the same with nulls; z: nothing
CREATE TABLE w_heap (LIKE s_heap);
CREATE TABLE w_lake (LIKE s_heap) USING iceberg;
CREATE TABLE z_heap (LIKE s_heap);
CREATE TABLE z_lake (LIKE s_heap) USING iceberg;
INSERT INTO m_heap
SELECT g, CASE WHEN g % 11 <> 0 THEN g % 700 END, g % 7, CASE WHEN g % 13 <> 0 THEN 't' || g % 300 END, g % 400 / 4.0,
       CASE g % 5 WHEN 0 THEN NULL WHEN 1 THEN 'NaN' WHEN 2 THEN '-0' ELSE (g % 50)::float8 END
FROM generate_series(1, 20000) g;
INSERT INTO s_heap SELECT g % 500, g % 6, 't' || g % 200, g % 90 / 2.0, CASE g % 40 WHEN 0 THEN 'NaN' ELSE (g % 40 - 1)::float8 END
FROM generate_series(1, 3000) g;
INSERT INTO w_heap SELECT * FROM s_heap;
INSERT INTO w_heap VALUES (NULL, 1, NULL, NULL, NULL), (5, NULL, 't1', 1, 1), (NULL, NULL, NULL, NULL, NULL);
INSERT INTO m_lake SELECT * FROM m_heap WHERE id <= 15000;
INSERT INTO s_lake SELECT * FROM s_heap;
INSERT INTO w_lake SELECT * FROM w_heap;
SET lake.bulk_rows = -1;
INSERT INTO m_lake SELECT * FROM m_heap WHERE id > 15000;
ANALYZE m_heap, m_lake, s_heap, s_lake, w_heap, w_lake, z_heap, z_lake;
CREATE FUNCTION marks(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || query LOOP
        IF line ~ 'Mark Join' THEN RETURN NEXT regexp_replace(line, '^ *Engine: *', ''); END IF;
    END LOOP;
END $$;

-- in conditions, where null counts as false
SELECT marks('SELECT count(*) FROM m_lake WHERE k IN (SELECT a FROM s_lake) OR j = 3');
SELECT twins('SELECT count(*), sum(id) FROM @m WHERE k IN (SELECT a FROM @s) OR j = 3');
SELECT twins('SELECT count(*), sum(id) FROM @m WHERE k IN (SELECT a FROM @w) OR j = 3');
SELECT twins('SELECT count(*), sum(id) FROM @m WHERE k IN (SELECT a FROM @z) OR j = 3');
SELECT twins('SELECT count(*), sum(id) FROM @m WHERE k IN (SELECT a FROM @s WHERE b < 3) OR k IN (SELECT a + 100 FROM @w WHERE b = 5) OR j = 3');
SELECT twins('SELECT id FROM @m WHERE (t IN (SELECT u FROM @w) OR j = 3) AND k < 20 ORDER BY id');
SELECT twins('SELECT count(*), sum(id) FROM @m WHERE n IN (SELECT m FROM @w) OR j = 3');
SELECT twins('SELECT count(*), sum(id) FROM @m WHERE f IN (SELECT g FROM @s) OR j = 3');
SELECT marks('SELECT count(*) FROM m_lake WHERE (k, j) IN (SELECT a, b FROM s_lake) OR t = ''t1''');
SELECT twins('SELECT count(*), sum(id) FROM @m WHERE (k, j) IN (SELECT a, b FROM @s) OR t = ''t1''');
SELECT twins('SELECT count(*), sum(id) FROM @m WHERE (k, j) IN (SELECT a, b FROM @w) OR t = ''t1''');
SELECT twins('SELECT count(*), sum(id) FROM @m WHERE (k, j) IN (SELECT a, b FROM @z) OR t = ''t1''');
SELECT twins('SELECT count(*), sum(x.id) FROM @m x LEFT JOIN @s y ON x.k = y.a AND y.b = 2 WHERE y.a IS NULL OR x.j IN (SELECT b FROM @s)');

-- where null is told from false
SELECT marks('SELECT count(*) FROM m_lake WHERE (k IN (SELECT a FROM w_lake)) IS NULL');
SELECT twins('SELECT count(*), sum(id) FROM @m WHERE (k IN (SELECT a FROM @s)) IS NULL');
SELECT twins('SELECT count(*), sum(id) FROM @m WHERE (k IN (SELECT a FROM @s)) IS TRUE');
SELECT twins('SELECT count(*), sum(id) FROM @m WHERE (k IN (SELECT a FROM @s)) IS NOT TRUE');
SELECT twins('SELECT count(*), sum(id) FROM @m WHERE (k IN (SELECT a FROM @s)) IS FALSE');
SELECT twins('SELECT count(*), sum(id) FROM @m WHERE k NOT IN (SELECT a FROM @s) OR j = 3');
SELECT twins('SELECT count(*), sum(id) FROM @m WHERE (k IN (SELECT a FROM @w)) IS NULL');
SELECT twins('SELECT count(*), sum(id) FROM @m WHERE (k IN (SELECT a FROM @w)) IS TRUE');
SELECT twins('SELECT count(*), sum(id) FROM @m WHERE (k IN (SELECT a FROM @w)) IS NOT TRUE');
SELECT twins('SELECT count(*), sum(id) FROM @m WHERE (k IN (SELECT a FROM @w)) IS FALSE');
SELECT twins('SELECT count(*), sum(id) FROM @m WHERE k NOT IN (SELECT a FROM @w) OR j = 3');
SELECT twins('SELECT count(*), sum(id) FROM @m WHERE (k IN (SELECT a FROM @z)) IS NULL');
SELECT twins('SELECT count(*), sum(id) FROM @m WHERE (k IN (SELECT a FROM @z)) IS TRUE');
SELECT twins('SELECT count(*), sum(id) FROM @m WHERE (k IN (SELECT a FROM @z)) IS NOT TRUE');
SELECT twins('SELECT count(*), sum(id) FROM @m WHERE (k IN (SELECT a FROM @z)) IS FALSE');
SELECT twins('SELECT count(*), sum(id) FROM @m WHERE k NOT IN (SELECT a FROM @z) OR j = 3');
SELECT twins('SELECT count(*), sum(id) FROM @m WHERE (k NOT IN (SELECT a FROM @w WHERE a IS NULL)) IS NULL');
SELECT twins('SELECT count(*), sum(id) FROM @m WHERE CASE WHEN k IN (SELECT a FROM @s) THEN j < 2 ELSE j > 4 END');
SELECT twins('SELECT count(*), sum(id) FROM @m WHERE ((k, j) NOT IN (SELECT a, b FROM @w)) IS NULL');

-- in results and aggregates
SELECT twins('SELECT r, count(*) FROM (SELECT k IN (SELECT a FROM @w) AS r FROM @m) x GROUP BY r');
SELECT twins('SELECT id, k IN (SELECT a FROM @w), f IN (SELECT g FROM @s) FROM @m WHERE id % 97 = 3 ORDER BY j, id');
SELECT twins('SELECT r, count(y.a) FROM (SELECT id, k, k IN (SELECT a FROM @w) AS r FROM @m) x FULL JOIN @s y ON x.id = y.a GROUP BY r');
SELECT marks('SELECT j, count(*) FILTER (WHERE k IN (SELECT a FROM s_lake)) FROM m_lake GROUP BY j');
SELECT twins('SELECT j, count(*) FILTER (WHERE k IN (SELECT a FROM @s)), sum(CASE WHEN k NOT IN (SELECT a FROM @w) THEN 1 WHEN t IN (SELECT u FROM @s) THEN 10 END) FROM @m GROUP BY j');
SELECT twins('SELECT count(*) FILTER (WHERE k NOT IN (SELECT a FROM @s)), count(*) FILTER (WHERE k IN (SELECT a FROM @z)) FROM @m');

-- EXISTS
SELECT marks('SELECT count(*) FROM m_lake x WHERE EXISTS (SELECT FROM s_lake y WHERE y.a = x.k AND y.b < 3) OR j = 3');
SELECT twins('SELECT count(*), sum(id) FROM @m x WHERE EXISTS (SELECT FROM @w y WHERE y.a = x.k AND y.b < 3) OR j = 3');
SELECT twins('SELECT count(*), sum(id) FROM @m x WHERE NOT EXISTS (SELECT FROM @w y WHERE y.a = x.k AND y.b < 3) OR j = 3');
SELECT twins('SELECT count(*), sum(id) FROM @m x WHERE NOT (EXISTS (SELECT FROM @w y WHERE y.a = x.k AND y.b = x.j) OR j = 3)');

-- a subquery that nobody asks for raises no error
SELECT marks('SELECT count(*) FROM m_lake WHERE id > 0 OR k IN (SELECT 10 / (b - 3) FROM s_lake)');
SELECT twins('SELECT count(*) FROM @m WHERE id > 0 OR k IN (SELECT 10 / (b - 3) FROM @s)');
SELECT twins('SELECT count(*) FROM @m WHERE id > 10 OR k IN (SELECT 10 / (b - 3) FROM @s)');

-- nor does what is compared where nobody asks, or there is nothing to compare it with
SELECT marks('SELECT count(*) FROM m_lake WHERE j = 0 OR 10 / j IN (SELECT a FROM s_lake)');
SELECT twins('SELECT count(*), sum(id) FROM @m WHERE j = 0 OR 10 / j IN (SELECT a FROM @s)');
SELECT twins('SELECT count(*), sum(id) FROM @m WHERE CASE WHEN j > 0 THEN 10 / j IN (SELECT a FROM @s) ELSE k = 3 END');
SELECT twins('SELECT count(*) FILTER (WHERE 10 / j IN (SELECT a FROM @z)) FROM @m');
SELECT twins('SELECT count(*), sum(id) FROM @m WHERE 10 / j NOT IN (SELECT a FROM @z)');
SELECT twins('SELECT j, count(*) FILTER (WHERE j > 0 AND 10 / j NOT IN (SELECT a FROM @w)) FROM @m GROUP BY j');
SELECT twins('SELECT r, count(*) FROM (SELECT 2147483640 + j IN (SELECT a FROM @s) AS r FROM @m WHERE j < 7) x GROUP BY r');
SELECT twins('SELECT count(*) FILTER (WHERE 2147483647 + j IN (SELECT a FROM @s)) FROM @m');
-- several of them, the same twice, and one within another
SELECT twins('SELECT r, s, count(*) FROM (SELECT k IN (SELECT a FROM @w) AS r, k NOT IN (SELECT a FROM @w) AS s FROM @m) x GROUP BY r, s');
SELECT twins('SELECT count(*), sum(id) FROM @m WHERE (k IN (SELECT a FROM @s WHERE b IN (SELECT b FROM @w) OR a < 9) OR j = 3) AND (t IN (SELECT u FROM @s) OR j > 4)');
SELECT twins('SELECT count(*), sum(id) FROM @m WHERE k IN (SELECT a FROM @s ORDER BY a DESC, b, m LIMIT 50) OR j = 3');
SELECT twins('SELECT count(*) FROM @m x JOIN @s y ON y.a = x.k WHERE (x.j IN (SELECT b FROM @w WHERE a < 20)) IS NOT TRUE AND y.b < 2');
SELECT twins('SELECT id, (SELECT count(*) FROM @s y WHERE y.b IN (SELECT b FROM @w WHERE a = x.k) OR y.a = x.j) FROM @m x WHERE id % 3001 = 7');
-- shown with what they are
DO $$
DECLARE
    line text;
    lines int := 0;
BEGIN
    FOR line IN EXPLAIN (VERBOSE, COSTS OFF) SELECT id, k IN (SELECT a FROM w_lake) FROM m_lake ORDER BY j, id LOOP
        lines := lines + 1;
    END LOOP;
    FOR line IN EXPLAIN (VERBOSE, COSTS OFF)
                SELECT j, count(*) FILTER (WHERE k IN (SELECT a FROM s_lake)) FROM m_lake GROUP BY j HAVING count(*) > 1 LOOP
        lines := lines + 1;
    END LOOP;
    ASSERT lines > 4;
END $$;
-- what is compared otherwise, or depends on the row, stays
SELECT marks('SELECT count(*) FROM m_lake WHERE k < ANY (SELECT a FROM s_lake) OR j = 3');
SELECT twins('SELECT count(*) FROM @m WHERE k < ANY (SELECT a FROM @s) OR j = 3');
SELECT twins('SELECT count(*) FROM @m x WHERE id % 499 = 3 AND (k IN (SELECT a FROM @s WHERE b < x.j) OR j = 3)');

DROP FUNCTION marks;
DROP TABLE m_heap, m_lake, s_heap, s_lake, w_heap, w_lake, z_heap, z_lake;
