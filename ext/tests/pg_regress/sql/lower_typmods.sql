-- Purpose: columns have the types, with length and precision, that heap gives them.
\pset format unaligned
\pset tuples_only on
CREATE TABLE m_heap (id int, v varchar(7), w varchar(9), c char(5), d char(3), n numeric(10,2), k numeric(6,2));
CREATE TABLE m_lake (LIKE m_heap) USING iceberg;
INSERT INTO m_heap SELECT g, 'v' || g, 'w' || g, 'c' || g, 'd' || g, g, g / 4.0 FROM generate_series(1, 8) g;
SET lake.bulk_rows = 0;
INSERT INTO m_lake SELECT * FROM m_heap WHERE id % 2 = 0;
SET lake.bulk_rows = -1;
INSERT INTO m_lake SELECT * FROM m_heap WHERE id % 2 = 1;
ANALYZE m_heap, m_lake;
CREATE FUNCTION m_columns(query text, engine text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    found text;
BEGIN
    PERFORM set_config('lake.engine', engine, true);
    EXECUTE 'CREATE TABLE m_result AS ' || query;
    SELECT string_agg(format_type(atttypid, atttypmod) || ' ' || attcollation::regcollation::text, ', ' ORDER BY attnum)
    INTO found FROM pg_attribute WHERE attrelid = to_regclass('m_result') AND attnum > 0;
    DROP TABLE m_result;
    RETURN found;
EXCEPTION WHEN feature_not_supported THEN
    RETURN 'not lowered';
END $$;
-- The columns of a query, and what the engine says instead.
CREATE FUNCTION m_check(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    heap text := m_columns(replace(query, '@m', 'm_heap'), 'off');
    lake text;
    setting text;
BEGIN
    FOREACH setting IN ARRAY ARRAY['off', 'on', 'force'] LOOP
        lake := m_columns(replace(query, '@m', 'm_lake'), setting);
        IF lake NOT IN (heap, 'not lowered') THEN
            RETURN format('DIFFERS with lake.engine = %s: heap %s, lake %s', setting, heap, lake);
        END IF;
    END LOOP;
    RETURN 'ok';
END $$;
SELECT m_check('SELECT v FROM @m UNION SELECT ''abc''::varchar');
SELECT m_check('SELECT ''abc''::varchar UNION SELECT v FROM @m');
SELECT m_check('SELECT v, c, n FROM @m UNION SELECT w, d, k FROM @m');
SELECT m_check('SELECT v, c, n FROM @m UNION SELECT v, c, n FROM @m');
SELECT m_check('SELECT v, c FROM @m UNION ALL SELECT w, d FROM @m ORDER BY 1, 2 LIMIT 5');
SELECT m_check('SELECT v, c FROM @m EXCEPT SELECT w, d FROM @m');
SELECT m_check('SELECT v, c FROM @m INTERSECT SELECT v, c FROM @m');
SELECT m_check('SELECT DISTINCT v, c, n FROM (SELECT v, c, n FROM @m UNION ALL SELECT w, d, k FROM @m) s');
SELECT m_check('SELECT v, count(*) FROM (SELECT v FROM @m UNION ALL SELECT ''x'') s GROUP BY v');
SELECT m_check('SELECT coalesce(v, ''x'') AS p, coalesce(v, w) AS q, coalesce(c, c) AS r, coalesce(n, k) AS s, count(*) FROM @m GROUP BY 1, 2, 3, 4');
SELECT m_check('SELECT CASE WHEN id > 3 THEN v ELSE w END AS p, CASE WHEN id > 3 THEN n ELSE n END AS q, CASE WHEN id > 3 THEN c END AS r, count(*) FROM @m GROUP BY 1, 2, 3');
SELECT m_check('SELECT nullif(v, ''x'') AS p, nullif(n, 3) AS q, greatest(n, n) AS r, v::varchar(3) AS s, n::numeric(12,2) AS t, count(*) FROM @m GROUP BY 1, 2, 3, 4, 5');
SELECT m_check('SELECT min(v COLLATE "C") AS p, max(c COLLATE "C") AS q, min(n) AS r, sum(n) AS s, max(n::numeric(12,2)) AS t FROM @m');
SELECT m_check('SELECT v, first_value(v) OVER (ORDER BY id), lag(n) OVER (ORDER BY id), nth_value(c, 2) OVER (ORDER BY id) FROM @m');
SELECT m_check('SELECT a.v, b.c, b.n, coalesce(a.v, b.v) FROM @m a LEFT JOIN @m b ON b.id = a.id + 1');
SELECT m_check('SELECT v, c, n FROM @m a FULL JOIN @m b USING (v, c, n)');
SELECT m_check('SELECT v COLLATE "C" AS v, id FROM @m ORDER BY 1 LIMIT 3');
DROP FUNCTION m_check, m_columns;
DROP TABLE m_heap, m_lake;
