-- Purpose: rows by their place in an order, FETCH … WITH TIES and DISTINCT ON, are heap's: how many rows differ, or why
-- the engine refused.
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
CREATE TABLE o_heap (id int, p int, o int, q text COLLATE "C", n numeric(10,2), f float8, d date);
INSERT INTO o_heap
SELECT g, nullif(g % 37, 5), nullif(g * 7919 % 500, 13), 'q' || g % 11, g % 1000 / 8.0, CASE WHEN g % 50 <> 0 THEN g % 300 END,
       date '2024-01-01' + g % 400
FROM generate_series(1, 20000) g;
CREATE TABLE o_lake (LIKE o_heap) USING iceberg;
INSERT INTO o_lake SELECT * FROM o_heap WHERE id <= 15000;
CREATE TABLE k_heap (id int PRIMARY KEY, p int, f float8);
CREATE TABLE k_lake (id int PRIMARY KEY, p int, f float8) USING iceberg;
INSERT INTO k_heap SELECT id, p, f FROM o_heap;
INSERT INTO k_lake SELECT id, p, f FROM o_heap WHERE id <= 15000;
SET lake.bulk_rows = -1;
INSERT INTO o_lake SELECT * FROM o_heap WHERE id > 15000;
INSERT INTO k_lake SELECT id, p, f FROM o_heap WHERE id > 15000;
ANALYZE o_heap, o_lake, k_heap, k_lake;

-- ties of the last row
SELECT differing('SELECT o, id FROM @o ORDER BY o FETCH FIRST 30 ROWS WITH TIES');
SELECT differing('SELECT o, id FROM @o ORDER BY o DESC NULLS LAST FETCH FIRST 1 ROW WITH TIES');
SELECT differing('SELECT o, id FROM @o ORDER BY o DESC FETCH FIRST 3 ROWS WITH TIES');
SELECT differing('SELECT id FROM @o ORDER BY q, d FETCH FIRST 100 ROWS WITH TIES');
SELECT differing('SELECT n, f FROM @o ORDER BY n DESC, f NULLS FIRST FETCH FIRST 70 ROWS WITH TIES');
SELECT differing('SELECT f, id FROM @o ORDER BY f FETCH FIRST 7 ROWS WITH TIES');
SELECT differing('SELECT id FROM @o ORDER BY id OFFSET 10 FETCH FIRST 20 ROWS WITH TIES');
SELECT differing('SELECT o FROM @o ORDER BY o OFFSET 1000 FETCH FIRST 20 ROWS WITH TIES');
SELECT differing('SELECT id FROM @o ORDER BY o FETCH FIRST 30000 ROWS WITH TIES');
SELECT differing('SELECT o FROM @o ORDER BY o OFFSET 30000 FETCH FIRST 20 ROWS WITH TIES');
SELECT differing('SELECT o FROM @o ORDER BY o OFFSET 5 FETCH FIRST 0 ROWS WITH TIES');
SELECT differing('SELECT p, count(*) FROM @o GROUP BY p ORDER BY count(*) FETCH FIRST 3 ROWS WITH TIES');
SELECT differing('SELECT max(id), count(*) FROM (SELECT id FROM @o ORDER BY o FETCH FIRST 30 ROWS WITH TIES) x');
SELECT differing('SELECT o FROM @o WHERE id < 0 ORDER BY o FETCH FIRST 3 ROWS WITH TIES');
SELECT twins('SELECT o FROM @o ORDER BY o DESC FETCH FIRST 60 ROWS WITH TIES', true);

-- the first row of each group
SELECT differing('SELECT DISTINCT ON (p) p, o, id FROM @o ORDER BY p, o, id');
SELECT differing('SELECT DISTINCT ON (p) p, o, id FROM @o ORDER BY p DESC NULLS LAST, o DESC, id DESC');
SELECT differing('SELECT DISTINCT ON (p, q) q, n, p FROM @o ORDER BY p, q, n DESC');
SELECT differing('SELECT DISTINCT ON (d) d, o FROM @o WHERE o > 20 ORDER BY d, o');
SELECT differing('SELECT DISTINCT ON (f) o, id FROM @o ORDER BY f, o, id');
SELECT differing('SELECT count(*), sum(id) FROM (SELECT DISTINCT ON (p) p, id FROM @o ORDER BY p, id) x');
SELECT differing('SELECT DISTINCT ON (p) p, o FROM @o WHERE id < 0 ORDER BY p, o');
SELECT differing('SELECT DISTINCT ON (p) id, p, f FROM @k ORDER BY p, id DESC');
SELECT twins('SELECT DISTINCT ON (p) p, o, id FROM @o ORDER BY p, o, id', true);
SELECT twins('SELECT DISTINCT ON (p) p, o, id FROM @o ORDER BY p, o, id LIMIT 5', true);

-- any of several rows
SELECT differing('SELECT DISTINCT ON (p) p, id FROM @o ORDER BY p, o');
SELECT differing('SELECT DISTINCT ON (p) p, f FROM @o ORDER BY p, f');
SELECT twins('WITH x AS (SELECT p, max(id) AS id FROM (SELECT DISTINCT ON (p) p, id FROM @o ORDER BY p, o) z GROUP BY p) SELECT count(*) FROM x a JOIN x b ON a.p = b.p AND a.id <> b.id');

RESET client_min_messages;
DROP FUNCTION differing;
DROP TABLE o_heap, o_lake, k_heap, k_lake;
