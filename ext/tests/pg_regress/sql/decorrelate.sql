-- Purpose: correlated subqueries that become joins give what they give in heap; what can't become one is left alone.
SET lake.bulk_rows = 10;
CREATE TABLE outer_heap (id int, a int, a8 bigint, b int, x int, n numeric(10,2), s text);
CREATE TABLE outer_lake (LIKE outer_heap) USING iceberg;
CREATE TABLE inner_heap (id int, a int, b int, y numeric(10,2), f double precision, s text);
CREATE TABLE inner_lake (LIKE inner_heap) USING iceberg;
-- keys that are null, keys without partners, many partners
INSERT INTO outer_heap SELECT g, a, a, g % 7, g % 50, (g % 97) / 2.0, 'k' || a
FROM (SELECT g, CASE WHEN g % 13 <> 0 THEN g % 40 END AS a FROM generate_series(1, 80) g) v;
INSERT INTO inner_heap SELECT g, a, g % 5, (g * 37 % 1000) / 10.0, g / 3.0, 'k' || a
FROM (SELECT g, CASE WHEN g % 11 <> 0 THEN g % 35 END AS a FROM generate_series(1, 2000) g) v;
INSERT INTO outer_lake SELECT * FROM outer_heap;
INSERT INTO inner_lake SELECT * FROM inner_heap;
ANALYZE outer_heap, outer_lake, inner_heap, inner_lake;
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
-- rejected where there is no partner: inner joins
SELECT used('SELECT o.id FROM outer_lake o WHERE x < (SELECT avg(y) FROM inner_lake i WHERE i.a = o.a)');
SELECT twins('SELECT o.id FROM @outer o WHERE x < (SELECT avg(y) FROM @inner i WHERE i.a = o.a)');
SELECT count(*) FROM outer_lake o WHERE x < (SELECT avg(y) FROM inner_lake i WHERE i.a = o.a);
SELECT used('SELECT count(*), sum(o.n) FROM outer_lake o WHERE n < (SELECT 0.2 * avg(y) FROM inner_lake i WHERE i.a = o.a)');
SELECT twins('SELECT count(*), sum(o.n) FROM @outer o WHERE n < (SELECT 0.2 * avg(y) FROM @inner i WHERE i.a = o.a)');
SELECT used('SELECT o.id FROM outer_lake o WHERE (SELECT max(y) FROM inner_lake i WHERE o.a = i.a) - n > 60');
SELECT twins('SELECT o.id FROM @outer o WHERE (SELECT max(y) FROM @inner i WHERE o.a = i.a) - n > 60');
SELECT used('SELECT o.id FROM outer_lake o WHERE 50 > (SELECT sum(i.b) FROM inner_lake i WHERE i.a = o.a AND i.y < 50)');
SELECT twins('SELECT o.id FROM @outer o WHERE 50 > (SELECT sum(i.b) FROM @inner i WHERE i.a = o.a AND i.y < 50)');
-- ties of the least one
SELECT used('SELECT o.id, i.id FROM outer_lake o JOIN inner_lake i ON i.a = o.a WHERE o.id <= 6 AND i.b = (SELECT min(j.b) FROM inner_lake j, outer_lake p WHERE p.id = j.id AND j.a = o.a)');
SELECT twins('SELECT o.id, i.id FROM @outer o JOIN @inner i ON i.a = o.a WHERE o.id <= 6 AND i.b = (SELECT min(j.b) FROM @inner j, @outer p WHERE p.id = j.id AND j.a = o.a)');
-- not rejected: left joins
SELECT used('SELECT o.id FROM outer_lake o WHERE 0 = (SELECT count(*) FROM inner_lake i WHERE i.a = o.a)');
SELECT twins('SELECT o.id FROM @outer o WHERE 0 = (SELECT count(*) FROM @inner i WHERE i.a = o.a)');
SELECT count(*) FROM outer_lake o WHERE 0 = (SELECT count(*) FROM inner_lake i WHERE i.a = o.a);
SELECT count(*) FROM outer_lake o WHERE a IS NULL AND 0 = (SELECT count(*) FROM inner_lake i WHERE i.a = o.a);
SELECT used('SELECT o.id FROM outer_lake o WHERE x > (SELECT count(y) FROM inner_lake i WHERE i.a = o.a AND i.b = 2)');
SELECT twins('SELECT o.id FROM @outer o WHERE x > (SELECT count(y) FROM @inner i WHERE i.a = o.a AND i.b = 2)');
SELECT used('SELECT o.id FROM outer_lake o WHERE n >= (SELECT coalesce(sum(y), 7) FROM inner_lake i WHERE i.a = o.a)');
SELECT twins('SELECT o.id FROM @outer o WHERE n >= (SELECT coalesce(sum(y), 7) FROM @inner i WHERE i.a = o.a)');
SELECT used('SELECT o.id FROM outer_lake o WHERE n < coalesce((SELECT max(y) FROM inner_lake i WHERE i.a = o.a), 10)');
SELECT twins('SELECT o.id FROM @outer o WHERE n < coalesce((SELECT max(y) FROM @inner i WHERE i.a = o.a), 10)');
SELECT used('SELECT o.id FROM outer_lake o WHERE (SELECT min(y) FROM inner_lake i WHERE i.a = o.a) IS NULL');
SELECT twins('SELECT o.id FROM @outer o WHERE (SELECT min(y) FROM @inner i WHERE i.a = o.a) IS NULL');
SELECT used('SELECT o.id FROM outer_lake o WHERE (SELECT count(*) FROM inner_lake i WHERE i.a = o.a) IS NOT NULL');
SELECT twins('SELECT o.id FROM @outer o WHERE (SELECT count(*) FROM @inner i WHERE i.a = o.a) IS NOT NULL');
SELECT used('SELECT o.id FROM outer_lake o WHERE (SELECT count(*) FILTER (WHERE i.b = 1) FROM inner_lake i WHERE i.a = o.a) * 1.5 = 0');
SELECT twins('SELECT o.id FROM @outer o WHERE (SELECT count(*) FILTER (WHERE i.b = 1) FROM @inner i WHERE i.a = o.a) * 1.5 = 0');
-- several keys, of several types
SELECT used('SELECT o.id FROM outer_lake o WHERE x < (SELECT avg(y) FROM inner_lake i WHERE i.a = o.a AND o.b = i.b)');
SELECT twins('SELECT o.id FROM @outer o WHERE x < (SELECT avg(y) FROM @inner i WHERE i.a = o.a AND o.b = i.b)');
SELECT count(*) FROM outer_lake o WHERE x < (SELECT avg(y) FROM inner_lake i WHERE i.a = o.a AND o.b = i.b);
SELECT used('SELECT o.id FROM outer_lake o WHERE x < (SELECT avg(y) FROM inner_lake i WHERE i.a = o.a8 AND i.s = o.s)');
SELECT twins('SELECT o.id FROM @outer o WHERE x < (SELECT avg(y) FROM @inner i WHERE i.a = o.a8 AND i.s = o.s)');
SELECT used('SELECT o.id FROM outer_lake o WHERE x < (SELECT avg(y) FROM inner_lake i WHERE i.a = o.a AND i.a = o.b)');
SELECT twins('SELECT o.id FROM @outer o WHERE x < (SELECT avg(y) FROM @inner i WHERE i.a = o.a AND i.a = o.b)');
-- within other subqueries, and several of them
SELECT used('SELECT o.id FROM outer_lake o WHERE a IN (SELECT j.a FROM inner_lake j WHERE j.id <= 100 AND j.y > (SELECT 0.05 * sum(k.y) FROM inner_lake k WHERE k.a = j.a AND k.b = j.b))');
SELECT twins('SELECT o.id FROM @outer o WHERE a IN (SELECT j.a FROM @inner j WHERE j.id <= 100 AND j.y > (SELECT 0.05 * sum(k.y) FROM @inner k WHERE k.a = j.a AND k.b = j.b))');
SELECT used('SELECT o.id FROM outer_lake o WHERE x < (SELECT avg(y) FROM inner_lake i WHERE i.a = o.a) AND 12 > (SELECT count(*) FROM inner_lake i WHERE i.b = o.b AND i.y < 3)');
SELECT twins('SELECT o.id FROM @outer o WHERE x < (SELECT avg(y) FROM @inner i WHERE i.a = o.a) AND 12 > (SELECT count(*) FROM @inner i WHERE i.b = o.b AND i.y < 3)');
SELECT used('SELECT count(*) FROM (SELECT * FROM outer_lake o WHERE x < (SELECT avg(y) FROM inner_lake i WHERE i.a = o.a)) v');
SELECT twins('SELECT count(*) FROM (SELECT * FROM @outer o WHERE x < (SELECT avg(y) FROM @inner i WHERE i.a = o.a)) v');
SELECT used('WITH w AS (SELECT * FROM outer_lake o WHERE 0 < (SELECT count(*) FROM inner_lake i WHERE i.a = o.a)) SELECT x.id FROM w x JOIN w y ON y.id = x.id + 1');
SELECT twins('WITH w AS (SELECT * FROM @outer o WHERE 0 < (SELECT count(*) FROM @inner i WHERE i.a = o.a)) SELECT x.id FROM w x JOIN w y ON y.id = x.id + 1');
SELECT used('SELECT o.id FROM outer_lake o WHERE x < (SELECT avg(y) FROM inner_lake i WHERE i.a = o.a) UNION ALL SELECT -1');
SELECT twins('SELECT o.id FROM @outer o WHERE x < (SELECT avg(y) FROM @inner i WHERE i.a = o.a) UNION ALL SELECT -1');
-- beside outer joins
SELECT used('SELECT o.id, l.id FROM outer_lake o LEFT JOIN outer_lake l ON l.n = o.n + 30 WHERE 40 > (SELECT count(*) FROM inner_lake i WHERE i.a = l.a)');
SELECT twins('SELECT o.id, l.id FROM @outer o LEFT JOIN @outer l ON l.n = o.n + 30 WHERE 40 > (SELECT count(*) FROM @inner i WHERE i.a = l.a)');
SELECT used('SELECT o.id, l.id FROM outer_lake o LEFT JOIN outer_lake l ON l.n = o.n + 30 WHERE o.x < (SELECT avg(i.y) FROM inner_lake i LEFT JOIN outer_lake p ON p.id = i.id WHERE i.a = o.a)');
SELECT twins('SELECT o.id, l.id FROM @outer o LEFT JOIN @outer l ON l.n = o.n + 30 WHERE o.x < (SELECT avg(i.y) FROM @inner i LEFT JOIN @outer p ON p.id = i.id WHERE i.a = o.a)');
-- asked for by some rows only, under OR, NOT or CASE, and results
SELECT used('SELECT o.id FROM outer_lake o WHERE x = 3 OR x < (SELECT avg(y) FROM inner_lake i WHERE i.a = o.a)');
SELECT twins('SELECT o.id FROM @outer o WHERE x = 3 OR x < (SELECT avg(y) FROM @inner i WHERE i.a = o.a)');
SELECT used('SELECT o.id FROM outer_lake o WHERE NOT (x < (SELECT avg(y) FROM inner_lake i WHERE i.a = o.a) AND x > 2)');
SELECT twins('SELECT o.id FROM @outer o WHERE NOT (x < (SELECT avg(y) FROM @inner i WHERE i.a = o.a) AND x > 2)');
SELECT used('SELECT o.id FROM outer_lake o WHERE x < CASE WHEN b = 1 THEN 5 ELSE (SELECT avg(y) FROM inner_lake i WHERE i.a = o.a) END');
SELECT twins('SELECT o.id FROM @outer o WHERE x < CASE WHEN b = 1 THEN 5 ELSE (SELECT avg(y) FROM @inner i WHERE i.a = o.a) END');
SELECT used('SELECT o.id, (SELECT avg(y) FROM inner_lake i WHERE i.a = o.a) FROM outer_lake o');
SELECT twins('SELECT o.id, (SELECT avg(y) FROM @inner i WHERE i.a = o.a) FROM @outer o');
SELECT used('SELECT o.id, coalesce((SELECT sum(y) FROM inner_lake i WHERE i.a = o.a), 0) + n FROM outer_lake o ORDER BY 2, 1');
SELECT twins('SELECT o.id, coalesce((SELECT sum(y) FROM @inner i WHERE i.a = o.a), 0) + n FROM @outer o');
SELECT twins('SELECT o.id, CASE WHEN b = 1 THEN -1 ELSE (SELECT count(*) FROM @inner i WHERE i.a = o.a) END, (SELECT sum(y) FROM @inner i WHERE i.a = o.a8 AND i.b = o.b) FROM @outer o');
SELECT twins('SELECT l.id, (SELECT count(*) FROM @inner i WHERE i.a = l.a), (SELECT coalesce(max(y), -5) FROM @inner i WHERE i.a = o.a) FROM @outer o LEFT JOIN @outer l ON l.id = o.id + 60');
SELECT twins('SELECT o.id FROM @outer o WHERE x = 3 OR 0 = (SELECT count(*) FROM @inner i WHERE i.a = o.a)');
SELECT twins('SELECT o.id, (SELECT max(y) FROM @inner i WHERE i.a = o.a) FROM @outer o WHERE 0 < (SELECT count(*) FROM @inner i WHERE i.b = o.b) ORDER BY 2 DESC NULLS LAST, 1 LIMIT 7');
SELECT twins('SELECT o.b, count(*), (SELECT count(*) FROM @inner i WHERE i.b = o.b) FROM @outer o GROUP BY o.b');
SELECT twins('SELECT DISTINCT (SELECT count(*) FROM @inner i WHERE i.a = o.a) FROM @outer o');
SELECT twins('SELECT o.id, (SELECT CASE WHEN count(*) = 0 THEN ''none'' ELSE max(i.s) END FROM @inner i WHERE i.a = o.a) FROM @outer o');
SELECT twins('SELECT o.id, (SELECT bool_and(i.b > 0) IS NULL FROM @inner i WHERE i.a = o.a AND i.y < 5) FROM @outer o');
SELECT twins('SELECT o.a, (SELECT count(*) FROM @inner i WHERE i.a = o.a) FROM (SELECT a FROM @outer UNION ALL SELECT a FROM @outer) o');
SELECT twins('SELECT o.id, CASE WHEN o.b > 2 THEN (SELECT sum(100 / (i.a - 30)) FROM @inner i WHERE i.a = o.a) END FROM @outer o WHERE o.a < 30');
SELECT twins('SELECT o.id, (SELECT i.y FROM @inner i WHERE i.a = o.a) FROM @outer o');
SELECT twins('SELECT o.id FROM @outer o WHERE x = 3 OR x < (SELECT i.y FROM @inner i WHERE i.a = o.a)');
CREATE TABLE taken (id int, n bigint);
INSERT INTO taken SELECT o.id, (SELECT count(*) FROM inner_lake i WHERE i.a = o.a) FROM outer_lake o;
SELECT count(*), count(*) FILTER (WHERE t.n <> (SELECT count(*) FROM inner_heap i WHERE i.a = o.a)) AS wrong FROM taken t JOIN outer_heap o ON o.id = t.id;
DROP TABLE taken;
-- keys that are equal though they are written otherwise
CREATE TABLE key_heap (id int, f float8, c char(4));
CREATE TABLE key_lake (LIKE key_heap) USING iceberg;
CREATE TABLE part_heap (LIKE key_heap);
CREATE TABLE part_lake (LIKE key_heap) USING iceberg;
INSERT INTO key_heap SELECT g, CASE g % 4 WHEN 0 THEN 'NaN' WHEN 1 THEN '-0' WHEN 2 THEN NULL ELSE (g % 9)::float8 END, 'c' || g % 12 FROM generate_series(1, 200) g;
INSERT INTO part_heap SELECT g, CASE g % 5 WHEN 0 THEN 'NaN' WHEN 1 THEN '0' WHEN 2 THEN NULL WHEN 3 THEN '-0' ELSE (g % 9)::float8 END, 'c' || g % 20 || ' ' FROM generate_series(1, 2000) g;
INSERT INTO key_lake SELECT * FROM key_heap;
INSERT INTO part_lake SELECT * FROM part_heap;
ANALYZE key_heap, key_lake, part_heap, part_lake;
SELECT twins('SELECT o.id, (SELECT count(*) FROM @part i WHERE i.f = o.f), (SELECT sum(i.id) FROM @part i WHERE i.c = o.c) FROM @key o');
SELECT twins('SELECT o.id FROM @key o WHERE id < 20 OR 100 > (SELECT count(*) FROM @part i WHERE i.f = o.f AND i.c = o.c)');
DROP TABLE key_heap, key_lake, part_heap, part_lake;
-- the first rows of an order for each row
SELECT used('SELECT o.id, l.* FROM outer_lake o, LATERAL (SELECT i.id AS inner_id, i.y FROM inner_lake i WHERE i.a = o.a ORDER BY i.y DESC, i.id LIMIT 3) l');
SELECT twins('SELECT o.id, l.* FROM @outer o, LATERAL (SELECT i.id AS inner_id, i.y FROM @inner i WHERE i.a = o.a ORDER BY i.y DESC, i.id LIMIT 3) l');
SELECT used('SELECT o.id, l.y FROM outer_lake o LEFT JOIN LATERAL (SELECT i.y FROM inner_lake i WHERE i.a = o.a AND o.b = i.b AND i.y > 20 ORDER BY i.id LIMIT 2) l ON l.y < 80');
SELECT twins('SELECT o.id, l.y FROM @outer o LEFT JOIN LATERAL (SELECT i.y FROM @inner i WHERE i.a = o.a AND o.b = i.b AND i.y > 20 ORDER BY i.id LIMIT 2) l ON l.y < 80');
SELECT twins('SELECT o.id, l.* FROM @outer o JOIN LATERAL (SELECT i.a, i.id AS inner_id FROM @inner i WHERE i.a = o.a8 ORDER BY i.a, i.id DESC LIMIT 2) l ON l.inner_id > o.x');
SELECT twins('SELECT o.id, l.* FROM @outer o LEFT JOIN LATERAL (SELECT i.y FROM @inner i WHERE i.a = o.a ORDER BY i.id LIMIT 0) l ON true');
SELECT twins('SELECT o.id, l FROM @outer o LEFT JOIN LATERAL (SELECT i.y FROM @inner i WHERE i.a = o.a ORDER BY i.id LIMIT 1) l ON true');
SELECT twins('SELECT o.id, p.id, l.y FROM @outer o JOIN @outer p ON p.x = o.x LEFT JOIN LATERAL (SELECT i.y FROM @inner i WHERE i.a = o.a AND i.b = p.b ORDER BY i.id LIMIT 1) l ON true');
SELECT twins('SELECT o.id, l.y, m.y FROM @outer o LEFT JOIN LATERAL (SELECT i.y, i.b FROM @inner i WHERE i.a = o.a ORDER BY i.id LIMIT 2) l ON true LEFT JOIN LATERAL (SELECT i.y FROM @inner i WHERE i.b = l.b ORDER BY i.y, i.id LIMIT 1) m ON true');
SELECT twins('SELECT o.id, l.y FROM @outer o, @outer p LEFT JOIN LATERAL (SELECT i.y FROM @inner i WHERE i.a = p.a ORDER BY i.id LIMIT 1) l ON true WHERE o.id = p.id');
SELECT twins('SELECT o.b, count(*), sum(l.y) FROM @outer o, LATERAL (SELECT i.y FROM @inner i WHERE i.a = o.a AND i.b <> 3 ORDER BY i.y DESC, i.id LIMIT 4) l GROUP BY o.b');
SELECT twins('SELECT o.id, l.y FROM @outer o, LATERAL (SELECT i.y FROM @inner i WHERE i.a < o.a ORDER BY i.id LIMIT 1) l');
SELECT used('SELECT o.id, (SELECT i.y FROM inner_lake i WHERE i.a = o.a ORDER BY i.y DESC, i.id LIMIT 1) FROM outer_lake o');
SELECT twins('SELECT o.id, (SELECT i.y FROM @inner i WHERE i.a = o.a ORDER BY i.y DESC, i.id LIMIT 1) FROM @outer o');
SELECT used('SELECT o.id FROM outer_lake o WHERE x < (SELECT y FROM inner_lake i WHERE i.a = o.a ORDER BY i.id LIMIT 1)');
SELECT twins('SELECT o.id FROM @outer o WHERE x < (SELECT y FROM @inner i WHERE i.a = o.a ORDER BY i.id LIMIT 1)');
SELECT twins('SELECT o.id FROM @outer o WHERE (SELECT y FROM @inner i WHERE i.a = o.a ORDER BY i.id LIMIT 1) IS NULL OR x = 3');
-- aggregates for each row, null over no rows
SELECT used('SELECT o.id, l.* FROM outer_lake o LEFT JOIN LATERAL (SELECT sum(i.y), max(i.b) AS b FROM inner_lake i WHERE i.a = o.a) l ON l.b >= o.b');
SELECT twins('SELECT o.id, l.* FROM @outer o LEFT JOIN LATERAL (SELECT sum(i.y), max(i.b) AS b FROM @inner i WHERE i.a = o.a) l ON l.b >= o.b');
SELECT twins('SELECT o.id, l.* FROM @outer o LEFT JOIN LATERAL (SELECT count(*), sum(i.y) FROM @inner i WHERE i.a = o.a) l ON true');
SELECT twins('SELECT o.id, l.* FROM @outer o, LATERAL (SELECT sum(i.y) FROM @inner i WHERE i.a = o.a) l');
-- rows that nobody asks for could raise an error above
SELECT twins('SELECT o.id FROM @outer o, LATERAL (SELECT i.a FROM @inner i WHERE i.a = o.a ORDER BY i.id LIMIT 1) l WHERE o.a < 30 AND 100 / (l.a - 30) < 0');
SELECT twins('SELECT v.id FROM (SELECT o.id, 100 / (l.a - 30) AS q FROM @outer o, LATERAL (SELECT i.a FROM @inner i WHERE i.a = o.a ORDER BY i.id LIMIT 1) l WHERE o.a < 30) v WHERE v.q < 0');
-- equal keys that a condition can tell apart: the first row is found before it
CREATE TABLE padded (id int, c bpchar);
INSERT INTO padded SELECT g, CASE g % 2 WHEN 1 THEN 'k' ELSE 'k ' END FROM generate_series(1, 20) g;
SELECT twins('SELECT o.id, l.id FROM padded o, LATERAL (SELECT p.c, i.id FROM padded p, @inner i WHERE i.id = p.id AND p.c = o.c ORDER BY p.id LIMIT 1) l WHERE l.c LIKE ''k ''');
SELECT twins('SELECT o.id FROM padded o WHERE (SELECT p.c FROM padded p, @inner i WHERE i.id = p.id AND p.c = o.c ORDER BY p.id LIMIT 1) LIKE ''k ''');
DROP TABLE padded;
SELECT twins('SELECT o.id, l.n FROM @outer o, LATERAL (SELECT p.n, p.id FROM @outer p WHERE p.n = o.n ORDER BY p.id DESC LIMIT 1) l WHERE l.n > 3');
-- an order whose comparison isn't known
SELECT twins('SELECT o.id, l.id FROM @outer o, LATERAL (SELECT i.id FROM @inner i WHERE i.a = o.a ORDER BY ARRAY[i.b, i.id] DESC LIMIT 2) l');
-- comparisons with all rows
SELECT used('SELECT o.id FROM outer_lake o WHERE o.b <> ALL (SELECT i.b FROM inner_lake i WHERE i.a = o.a AND i.y < 30)');
SELECT twins('SELECT o.id FROM @outer o WHERE o.b <> ALL (SELECT i.b FROM @inner i WHERE i.a = o.a AND i.y < 30)');
SELECT used('SELECT o.id FROM outer_lake o WHERE o.b NOT IN (SELECT i.b FROM inner_lake i WHERE i.a = o.a AND i.y < 30)');
SELECT twins('SELECT o.id FROM @outer o WHERE o.b NOT IN (SELECT i.b FROM @inner i WHERE i.a = o.a AND i.y < 30)');
SELECT twins('SELECT o.id FROM @outer o WHERE o.a NOT IN (SELECT i.a FROM @inner i WHERE i.b = o.b AND i.y < 10)');
SELECT twins('SELECT o.id FROM @outer o WHERE o.a <> ALL (SELECT i.a FROM @inner i WHERE i.b = o.b AND i.id < 40 AND i.a IS NOT NULL)');
SELECT twins('SELECT o.id FROM @outer o WHERE (o.a, o.x) NOT IN (SELECT i.a, i.id FROM @inner i WHERE i.b = o.b)');
SELECT twins('SELECT o.id FROM @outer o WHERE o.x > ALL (SELECT i.id FROM @inner i WHERE i.a = o.a AND i.id < 40)');
SELECT twins('SELECT o.id FROM @outer o WHERE NOT o.x < ANY (SELECT i.id FROM @inner i WHERE i.a = o.a AND i.id < 200)');
SELECT twins('SELECT o.id FROM @outer o WHERE o.a < 30 AND o.x <> ALL (SELECT 100 / (i.a - 30) FROM @inner i WHERE i.a = o.a)');
-- what else could raise an error stays behind the comparison
SELECT twins('SELECT count(*) FROM @outer o JOIN @outer p ON 100 / (o.b - 3) > p.b - 50 WHERE o.b NOT IN (SELECT i.b FROM @inner i WHERE i.b = o.b AND i.b = 3)');
SELECT twins('SELECT count(*) FROM (SELECT 100 / (o.b - 3) AS q FROM @outer o WHERE o.b NOT IN (SELECT i.b FROM @inner i WHERE i.b = o.b AND i.b = 3)) v JOIN @outer p ON p.b = v.q');
SELECT twins('SELECT count(*) FROM @outer o JOIN @outer p ON 100 / (o.b - 3) > p.b - 50 WHERE 10 > (SELECT i.b FROM @inner i WHERE i.b = o.b AND i.b <> 3 ORDER BY i.id LIMIT 1)');
SELECT twins('SELECT count(*) FROM @outer o JOIN @outer p ON p.id = o.id WHERE o.b NOT IN (SELECT i.b FROM @inner i WHERE i.a = p.a AND i.y < 30)');
SELECT twins('SELECT o.id FROM @outer o WHERE o.x / 2 > 3 AND o.b NOT IN (SELECT i.b FROM @inner i WHERE i.a = o.a AND i.y < 30)');
-- volatile
SELECT used('SELECT o.id FROM outer_lake o WHERE x < (SELECT avg(y) FROM inner_lake i WHERE i.a = o.a AND random() < 2)');
SELECT twins('SELECT o.id FROM @outer o WHERE x < (SELECT avg(y) FROM @inner i WHERE i.a = o.a AND random() < 2)');
-- not by equality
SELECT used('SELECT o.id FROM outer_lake o WHERE x < (SELECT avg(y) FROM inner_lake i WHERE i.a < o.a)');
SELECT twins('SELECT o.id FROM @outer o WHERE x < (SELECT avg(y) FROM @inner i WHERE i.a < o.a)');
SELECT used('SELECT o.id FROM outer_lake o WHERE x < (SELECT avg(y) FROM inner_lake i WHERE i.a IS NOT DISTINCT FROM o.a)');
SELECT twins('SELECT o.id FROM @outer o WHERE x < (SELECT avg(y) FROM @inner i WHERE i.a IS NOT DISTINCT FROM o.a)');
SELECT used('SELECT o.id FROM outer_lake o WHERE x < (SELECT avg(y) FROM inner_lake i WHERE i.a = o.a AND i.b < o.b)');
SELECT twins('SELECT o.id FROM @outer o WHERE x < (SELECT avg(y) FROM @inner i WHERE i.a = o.a AND i.b < o.b)');
SELECT used('SELECT o.id FROM outer_lake o WHERE x < (SELECT avg(y + o.x) FROM inner_lake i WHERE i.a = o.a)');
SELECT twins('SELECT o.id FROM @outer o WHERE x < (SELECT avg(y + o.x) FROM @inner i WHERE i.a = o.a)');
SELECT used('SELECT o.id FROM outer_lake o WHERE x < (SELECT avg(y) FROM inner_lake i WHERE i.a + o.b = 30)');
SELECT twins('SELECT o.id FROM @outer o WHERE x < (SELECT avg(y) FROM @inner i WHERE i.a + o.b = 30)');
SELECT used('SELECT o.id FROM outer_lake o WHERE x < (SELECT avg(y) FROM inner_lake i WHERE i.s COLLATE "C" = o.s)');
SELECT twins('SELECT o.id FROM @outer o WHERE x < (SELECT avg(y) FROM @inner i WHERE i.s COLLATE "C" = o.s)');
-- groups and rows that nobody asks for could raise an error
SELECT used('SELECT o.id FROM outer_lake o WHERE o.a < 30 AND x > (SELECT sum(100 / (i.a - 30)) FROM inner_lake i WHERE i.a = o.a)');
SELECT twins('SELECT o.id FROM @outer o WHERE o.a < 30 AND x > (SELECT sum(100 / (i.a - 30)) FROM @inner i WHERE i.a = o.a)');
SELECT used('SELECT o.id FROM outer_lake o WHERE o.a < 30 AND x > (SELECT avg(y) FROM inner_lake i WHERE i.a = o.a AND 100 / (i.a - 30) < 0)');
SELECT twins('SELECT o.id FROM @outer o WHERE o.a < 30 AND x > (SELECT avg(y) FROM @inner i WHERE i.a = o.a AND 100 / (i.a - 30) < 0)');
SELECT used('SELECT o.id FROM outer_lake o WHERE x > (SELECT 100 / (1 + count(*)) FROM inner_lake i WHERE i.a = o.a)');
SELECT twins('SELECT o.id FROM @outer o WHERE x > (SELECT 100 / (1 + count(*)) FROM @inner i WHERE i.a = o.a)');
SELECT used('SELECT o.id FROM outer_lake o WHERE x < (SELECT sum(f) FROM inner_lake i WHERE i.a = o.a)');
SELECT twins('SELECT o.id FROM @outer o WHERE x < (SELECT sum(f) FROM @inner i WHERE i.a = o.a)');
-- more than FROM, WHERE and aggregates
SELECT used('SELECT o.id FROM outer_lake o WHERE x < (SELECT y FROM inner_lake i WHERE i.a = o.a ORDER BY i.id LIMIT 1 OFFSET 1)');
SELECT twins('SELECT o.id FROM @outer o WHERE x < (SELECT y FROM @inner i WHERE i.a = o.a ORDER BY i.id LIMIT 1 OFFSET 1)');
SELECT used('SELECT o.id FROM outer_lake o WHERE x < (SELECT avg(y) FROM inner_lake i WHERE i.a = o.a HAVING count(*) > 51)');
SELECT twins('SELECT o.id FROM @outer o WHERE x < (SELECT avg(y) FROM @inner i WHERE i.a = o.a HAVING count(*) > 51)');
SELECT used('SELECT o.id FROM outer_lake o WHERE x < (SELECT avg(y) FROM inner_lake i WHERE i.a = o.a GROUP BY i.a)');
SELECT twins('SELECT o.id FROM @outer o WHERE x < (SELECT avg(y) FROM @inner i WHERE i.a = o.a GROUP BY i.a)');
SELECT used('SELECT o.id FROM outer_lake o WHERE x < (SELECT avg(y) FROM (SELECT * FROM inner_lake LIMIT 3000) i WHERE i.a = o.a)');
SELECT twins('SELECT o.id FROM @outer o WHERE x < (SELECT avg(y) FROM (SELECT * FROM @inner LIMIT 3000) i WHERE i.a = o.a)');
SELECT used('SELECT o.id FROM outer_lake o WHERE x < (SELECT avg(DISTINCT y) FROM inner_lake i WHERE i.a = o.a)');
SELECT twins('SELECT o.id FROM @outer o WHERE x < (SELECT avg(DISTINCT y) FROM @inner i WHERE i.a = o.a)');
-- from two levels up
SELECT used('SELECT o.id FROM outer_lake o WHERE o.id <= 5 AND 3 < (SELECT count(*) FROM inner_lake i WHERE i.id <= 50 AND i.b < o.b AND i.y < (SELECT avg(j.y) FROM inner_lake j WHERE j.a = o.a))');
SELECT twins('SELECT o.id FROM @outer o WHERE o.id <= 5 AND 3 < (SELECT count(*) FROM @inner i WHERE i.id <= 50 AND i.b < o.b AND i.y < (SELECT avg(j.y) FROM @inner j WHERE j.a = o.a))');
-- what a security barrier keeps apart
CREATE VIEW barrier_heap WITH (security_barrier) AS SELECT * FROM outer_heap WHERE id < 60;
CREATE VIEW barrier_lake WITH (security_barrier) AS SELECT * FROM outer_lake WHERE id < 60;
SELECT used('SELECT o.id FROM barrier_lake o WHERE x < (SELECT avg(y) FROM inner_lake i WHERE i.a = o.a)');
SELECT twins('SELECT o.id FROM @barrier o WHERE x < (SELECT avg(y) FROM @inner i WHERE i.a = o.a)');
-- where few rows ask
SELECT used('SELECT o.id FROM outer_lake o WHERE id = 5 AND x < (SELECT avg(y) FROM inner_lake i WHERE i.a = o.a)');
SELECT twins('SELECT o.id FROM @outer o WHERE id = 5 AND x < (SELECT avg(y) FROM @inner i WHERE i.a = o.a)');
-- An incomplete pattern is an error only for rows that somebody asks for.
SELECT twins('SELECT o.id FROM @outer o WHERE id = 5 AND x < (SELECT avg(y) FROM @inner i WHERE i.a = o.a AND i.s LIKE ANY (''{k1%,"k3\\"}''))');
-- rights are those of the subquery's tables
GRANT SELECT ON outer_lake TO regress_lake_user;
SET ROLE regress_lake_user;
SELECT count(*) FROM outer_lake o WHERE x < (SELECT avg(y) FROM inner_lake i WHERE i.a = o.a);
RESET ROLE;
GRANT SELECT (a, y) ON inner_lake TO regress_lake_user;
SET ROLE regress_lake_user;
SELECT count(*) FROM outer_lake o WHERE x < (SELECT avg(y) FROM inner_lake i WHERE i.a = o.a);
SELECT count(*) FROM outer_lake o WHERE x < (SELECT avg(y) FROM inner_lake i WHERE i.a = o.a AND i.b = 1);
RESET ROLE;
-- parameters, and plans that are kept
PREPARE d1(numeric) AS SELECT count(*) FROM outer_lake o WHERE x < (SELECT avg(y) FROM inner_lake i WHERE i.a = o.a AND y < $1);
SET plan_cache_mode = force_generic_plan;
EXECUTE d1(50);
EXECUTE d1(20);
RESET plan_cache_mode;
DEALLOCATE d1;
DROP VIEW barrier_heap, barrier_lake;
DROP TABLE outer_heap, outer_lake, inner_heap, inner_lake;
DROP FUNCTION used;
