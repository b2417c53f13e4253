-- Purpose: pages of Parquet files that a condition leaves out are not read; the rows are those of a heap table.
CREATE TABLE p_lake (id int, n int, s text, t text COLLATE "C", amount numeric(12,2), wide numeric(30,4), f float8, ts timestamp, c char(8))
    USING iceberg;
CREATE TABLE p_heap (LIKE p_lake);
INSERT INTO p_heap
    SELECT g, CASE WHEN g / 25000 <> 1 THEN g END, 'text ' || g % 100, lpad(g::text, 8, '0') || repeat('x', 80), g / 100.0 - 500,
           g::numeric(30,4) * -1000000000000, CASE WHEN g > 99990 THEN 'NaN' ELSE g - 0.5 END,
           timestamp '2024-01-01' + g * interval '1 minute', lpad(g::text, 6, '0')
    FROM generate_series(1, 100000) g;
SET lake.bulk_rows = 0;
INSERT INTO p_lake SELECT * FROM p_heap ORDER BY id;
SELECT * FROM hot_cold('p_lake');
-- How many pages of the columns of a query are read, of those that there are; all if it doesn't look at them.
CREATE FUNCTION p_pages(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    line text;
    pages bigint[] := '{}';
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) ' || query LOOP
        IF line ~ 'Pages (Read|Pruned)' THEN pages := pages || substring(line FROM '\d+')::bigint; END IF;
    END LOOP;
    RETURN COALESCE(pages[1] || ' of ' || (pages[1] + pages[2]), 'all');
END $$;
SELECT p_pages('SELECT id, s FROM p_lake WHERE id BETWEEN 50001 AND 50010');
SELECT p_pages('SELECT count(*) FROM p_lake WHERE ts > timestamp ''2024-01-01'' + 95000 * interval ''1 minute''');
SET plan_cache_mode = force_generic_plan;
PREPARE p_one (int) AS SELECT id FROM p_lake WHERE id = $1;
SELECT p_pages('EXECUTE p_one (50001)');
EXECUTE p_one (50001);
RESET plan_cache_mode;
-- Once as many rows have been read by pages as the row group has, its columns are kept in memory.
DO $$ BEGIN
    FOR i IN 1..6 LOOP PERFORM id, s FROM p_lake WHERE id BETWEEN 50001 AND 50010; END LOOP;
END $$;
SELECT p_pages('SELECT id, s FROM p_lake WHERE id BETWEEN 50001 AND 50010');
ANALYZE p_lake;
-- the same rows, by pages or not
SELECT twins('SELECT * FROM @p WHERE id BETWEEN 20470 AND 20490');
SELECT twins('SELECT id FROM @p WHERE id IN (1, 20480, 20481, 100000, 200000)');
SELECT twins('SELECT id FROM @p WHERE n = 30000');
SELECT twins('SELECT id, n FROM @p WHERE n > 24990 AND n < 50010');
SELECT twins('SELECT count(*), sum(id) FROM @p WHERE n IS NULL AND id < 30000');
SELECT twins('SELECT id FROM @p WHERE t = lpad(''77777'', 8, ''0'') || repeat(''x'', 80)');
SELECT twins('SELECT id FROM @p WHERE t >= ''00099990'' ORDER BY t', true);
SELECT twins('SELECT id FROM @p WHERE amount < -499.95 OR amount = 12.34');
SELECT twins('SELECT id FROM @p WHERE amount BETWEEN -0.05 AND 0.05');
SELECT twins('SELECT id FROM @p WHERE wide <= -99990000000000000');
SELECT twins('SELECT id FROM @p WHERE f > 99985');
SELECT twins('SELECT id FROM @p WHERE f = ''NaN''');
SELECT twins('SELECT id FROM @p WHERE c = ''077777''');
SELECT twins('SELECT id FROM @p WHERE 100 / (id - 30000) > 5 AND id < 10');
SELECT twins('SELECT id, s FROM @p WHERE id > 10 ORDER BY id DESC LIMIT 7', true);
SELECT twins('SELECT a.id, b.s FROM @p a JOIN @p b USING (id) WHERE a.amount = 7.77');
-- deleted rows stay out
DELETE FROM p_heap WHERE id % 30 = 0;
DELETE FROM p_lake WHERE id % 30 = 0;
SELECT twins('SELECT id, s, f FROM @p WHERE id BETWEEN 61400 AND 61500');
CALL settle();
SELECT lake.merge('p_lake') > 0 AS merged;
SELECT twins('SELECT id, s, wide FROM @p WHERE id BETWEEN 61400 AND 61500');
-- changes find the rows at their positions
UPDATE p_heap SET s = 'new' WHERE id BETWEEN 40000 AND 40010;
UPDATE p_lake SET s = 'new' WHERE id BETWEEN 40000 AND 40010;
SELECT twins('SELECT id, s FROM @p WHERE id BETWEEN 39990 AND 40020');
DEALLOCATE p_one;
DROP FUNCTION p_pages;
DROP TABLE p_lake, p_heap;
