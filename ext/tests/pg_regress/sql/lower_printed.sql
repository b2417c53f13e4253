-- Purpose: intervals and jsonb, which are stored as texts: the engine computes what heap computes, errors included, and it is lowered.
-- Each list prints only what differs.
SET timezone = 'UTC';
CREATE TABLE p_heap (id int, g int, i interval, i2 interval, k float8, n int, ts timestamp, tz timestamptz, j jsonb, t text);
CREATE TABLE p_lake (LIKE p_heap) USING iceberg;
INSERT INTO p_heap VALUES
    (1, 1, '0', '1 day', 1, 0, '2024-01-31', '2024-01-31 00:00+00', '{"a": 1, "b": "x", "c": [1, 2, {"d": null}]}', '1'),
    (2, 1, '1 mon', '30 days', 2.5, 1, '2024-02-29 12:00', '2024-02-29 12:00+00', '{"a": 1.50, "b": "q\"\\\n\u0001ä€", "e": true}', '-2147483648'),
    (3, 1, '720:00:00', '-1 mons', -0.3, -1, '1970-01-01', '1970-01-01 00:00+00', '[1, "a", null, {"a": "x"}, [2]]', '2.5'),
    (4, 2, '1 year 2 mons 3 days 04:05:06.789', '-1 year +2 mons -3 days +04:05:06', 0.1, 2, '2000-02-29 23:59:59.999999', '2000-02-29 23:59:59.999999+00', '"a"', '1e3'),
    (5, 2, '-1 days +00:00:01', '1 day -00:00:01', 10, -5, '1969-12-31 23:59:59.999999', '1969-12-31 23:59:59.999999+00', '12.50', '0.005'),
    (6, 2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
    (7, 3, '45 days 50:00:00', '100 years', 1e9, 10000, '2023-12-31', '2023-12-31 00:00+00', 'null', '99999.99'),
    (8, 3, '178956970 years 7 mons', '2147483647 days', 1e300, 2147483647, '9999-12-31', '9999-12-31 00:00+00', 'true', '1000000'),
    (9, 4, '00:00:00.000001', '-2562047788:00:54.775807', 'NaN', 3, '2024-03-31 02:30', '2024-03-31 02:30+00', '{}', 'NaN'),
    (10, 4, '5 mons 6 days 00:10:10', '41 mons -12 days -360:00', 8.2, 4, '2008-12-30 22:00', '2008-12-30 22:00+00', '[]', ' 7 '),
    (11, 5, '1 day 02:00:00', '26:00:00', 0, 7, '2012-06-30', '2012-06-30 00:00+00', '{"a": {"b": [{"c": 7}, "x"]}, "1": "one"}', 'x'),
    (12, 6, 'infinity', '-infinity', 2, 8, '2012-06-30', '2012-06-30 00:00+00', '{"a": "7", "b": false, "c": []}', 'y');
SET lake.bulk_rows = 0;
INSERT INTO p_lake SELECT * FROM p_heap WHERE id % 3 <> 0;
SET lake.bulk_rows = -1;
INSERT INTO p_lake SELECT * FROM p_heap WHERE id % 3 = 0;
ANALYZE p_heap, p_lake;
-- "ok" if the engine runs the query and answers as heap, for all rows and for each of them.
CREATE FUNCTION p_check(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    why text;
    answer text;
BEGIN
    PERFORM set_config('lake.engine', 'force', true);
    BEGIN
        EXECUTE 'EXPLAIN ' || replace(query, '@p', 'p_lake');
    EXCEPTION WHEN feature_not_supported THEN
        GET STACKED DIAGNOSTICS why = PG_EXCEPTION_DETAIL;
    END;
    PERFORM set_config('lake.engine', 'on', true);
    IF why IS NOT NULL THEN
        RETURN 'not lowered: ' || why;
    END IF;
    answer := twins(query);
    FOR k IN 1 .. 12 LOOP
        EXIT WHEN answer <> 'ok';
        answer := twins(replace(query, 'FROM @p', 'FROM @p WHERE id = ' || k));
    END LOOP;
    RETURN answer;
END $$;
CREATE FUNCTION p_values(expressions text) RETURNS SETOF text LANGUAGE sql AS $$
    SELECT e || ': ' || answer
    FROM string_to_table(trim(E'\n' FROM expressions), E'\n') e, p_check('SELECT id, ' || e || ', count(*) FROM @p GROUP BY 1, 2') answer
    WHERE answer <> 'ok' $$;
CREATE FUNCTION p_calls(calls text) RETURNS SETOF text LANGUAGE sql AS $$
    SELECT e || ': ' || answer
    FROM string_to_table(trim(E'\n' FROM calls), E'\n') e,
         unnest(ARRAY['SELECT g, %s FROM @p GROUP BY g', 'SELECT %s FROM @p', 'SELECT id, %s FILTER (WHERE id <> 12) FROM @p GROUP BY id']) q,
         p_check(format(q, e)) answer
    WHERE answer <> 'ok' $$;

-- intervals: comparisons and fields
SELECT p_values($$
i = i2
i <> i2
i < i2
i >= i2
i > interval '1 day'
i <= interval '30 days'
i2 = interval '-infinity'
i IN (interval '1 mon', interval '26:00:00')
i IS DISTINCT FROM i2
i BETWEEN interval '0' AND interval '1 year'
i = ts - timestamp '1970-01-01'
ts + i > timestamp '2024-01-01'
tz - i < now()
extract(year from i)
extract(month from i)
extract(day from i)
extract(hour from i)
extract(minute from i)
extract(second from i)
extract(milliseconds from i)
extract(microseconds from i)
extract(epoch from i)
extract(quarter from i)
extract(decade from i2)
extract(century from i2)
extract(millennium from i2)
extract(epoch from i2)
extract(day from ts - timestamp '2000-01-01 12:00')
extract(year from age(ts, timestamp '2000-02-29'))
ts + i
ts - i2
tz + i2
tz - i
$$);
-- sums of one value are that value
SELECT p_calls($$
sum(i)
avg(i)
min(i)
max(nullif(i, interval '1 mon'))
min(i2)
max(i2)
count(i)
sum(i + i2)
sum(i - i2)
sum(- i)
sum(i * k)
sum(k * i)
sum(i / nullif(k, 0))
sum(i / n)
sum(i2 * n)
sum(justify_hours(i))
sum(justify_days(i))
sum(justify_interval(i2))
sum(ts - timestamp '2000-01-01 12:00')
sum(tz - timestamptz '2000-01-01 12:00+00')
avg(ts - timestamp '2000-01-01 12:00')
max(ts - timestamp '2000-01-01 12:00')
sum(age(ts, timestamp '2000-02-29 12:00'))
sum(age(tz, timestamptz '2000-02-29 12:00+00'))
sum(make_interval(n, n, n, n, n, n, k))
sum(make_interval(secs => k))
sum(coalesce(i, i2, interval '1 day'))
sum(nullif(i, i2))
sum(date_part('epoch', i) + 0)
$$);
SELECT p_check('SELECT id, i, i2 FROM @p ORDER BY i, id');
SELECT p_check('SELECT id, i FROM @p ORDER BY i2 DESC NULLS LAST, id LIMIT 5');
SELECT p_check('SELECT a.id, b.id FROM @p a JOIN @p b ON a.i = b.i2');
-- A sum that leaves the range on the way: Postgres says whether it does.
SELECT twins('SELECT sum(i2) FROM (SELECT i2 FROM @p WHERE id = 8 UNION ALL SELECT i2 FROM @p WHERE id IN (1, 8)) x');
-- Groups of intervals, which show their only form; what is not shown may have several.
SELECT p_check('SELECT i2, count(*), sum(n), min(i2) FROM @p GROUP BY i2');
SELECT p_check('SELECT i2, count(*) FROM @p GROUP BY i2 ORDER BY i2 LIMIT 5');
SELECT p_check('SELECT i2, count(DISTINCT g) FROM @p GROUP BY i2');
SELECT p_check('SELECT i2, array_agg(id ORDER BY id) FROM @p GROUP BY i2');
SELECT p_check('SELECT extract(month FROM i2), count(*) FROM @p GROUP BY i2');
SELECT p_check('SELECT count(*), max(id) FROM @p GROUP BY i');
SELECT p_check('SELECT count(DISTINCT i), count(DISTINCT i2), count(*) FROM @p');
SELECT p_check('SELECT count(*) FROM (SELECT DISTINCT i FROM @p) x');
SELECT p_check('SELECT DISTINCT i2 FROM @p');
SELECT p_check('SELECT i2 FROM @p UNION SELECT i2 FROM @p');
SELECT p_check('SELECT i2 FROM @p INTERSECT SELECT i2 FROM @p');
SELECT p_check('SELECT i2 FROM @p EXCEPT SELECT i FROM @p');
SELECT p_check('SELECT id, count(*) OVER (PARTITION BY i), row_number() OVER (PARTITION BY i ORDER BY id) FROM @p');
SELECT twins('SELECT i, count(*) FROM @p WHERE id <> 3 GROUP BY i'), twins('SELECT DISTINCT i2 FROM @p'), twins('SELECT count(DISTINCT i) FROM @p');

-- jsonb
SELECT p_values($$
j->>'a'
j->>'b'
j->>'c'
j->>1
j->>-1
j->>0
(j->'c')->>2
(j->'a')->>'b'
j#>>'{a,b,0,c}'
j#>>'{c,2}'
j#>>'{1}'
j#>>'{-1, 0}'
(j#>'{a,b}')->>1
jsonb_typeof(j)
jsonb_typeof(j->'a')
jsonb_typeof(j->'c'->2->'d')
jsonb_array_length(j->'c')
jsonb_array_length(j)
j ? 'a'
j ? '1'
j @> '{"a": 1}'
j @> '{"a": 1.5}'
j @> '[1, "a"]'
j @> '"a"'
j @> '{"c": [{}]}'
j @> '{"a": {"b": [{"c": 7}]}}'
j::text
(j->'a')::text
(j->'a')::int
(j->'a')::bigint
(j->'a')::smallint
(j->'e')::boolean
j::boolean
(j->'a')::numeric(12,2)
(j->>'a')::int
(j->>'a')::numeric(10,1)
j->'a' IS NULL
coalesce(j->>'x', j->>'b', 'none')
j = '{"a": 1, "b": "x", "c": [1, 2, {"d": null}]}'
j = '12.5'
j <> '[]'
j < '12.51'
j <= 'null'
j > '[]'
j >= '{}'
j = ANY (ARRAY['12.500', 'null', NULL, '[]']::jsonb[])
j->'a' = '1.5'
j->'a' < '1.50'
(j->'b') > (j->'a')
j IS DISTINCT FROM '12.5'
j BETWEEN 'null' AND '{}'
nullif(j->'a', '1.5')
CASE j WHEN '12.5' THEN 1 WHEN '{}' THEN 2 END
$$);
SELECT p_calls($$
count(j->'a')
sum((j->'a')::float8 + 0)
max((j->>'a') COLLATE "C")
sum(jsonb_array_length(j->'c'))
$$);
SELECT p_check('SELECT id, j, j->''a'', j#>''{c}'' FROM @p ORDER BY id');
SELECT p_check('SELECT count(*) FROM @p WHERE j->>''b'' = ''x'' OR (j->''a'') @> ''1.5''');
-- Orders and groups: numbers by their value, and as they are printed where only one form is there.
SELECT p_check('SELECT j, count(*) FROM @p GROUP BY j');
SELECT p_check('SELECT j->''a'', count(DISTINCT g) FROM @p GROUP BY 1');
SELECT p_check('SELECT DISTINCT j FROM @p');
SELECT p_check('SELECT count(DISTINCT j), count(DISTINCT j->''a''), count(*) FROM @p');
SELECT p_check('SELECT j FROM @p UNION SELECT j->''a'' FROM @p');
SELECT p_check('SELECT j FROM @p INTERSECT SELECT j FROM @p');
SELECT p_check('SELECT id, j FROM @p ORDER BY j, id');
SELECT p_check('SELECT id, j FROM @p ORDER BY j->''a'' DESC NULLS LAST, id LIMIT 5');
SELECT p_check('SELECT id, rank() OVER (ORDER BY j), count(*) OVER (PARTITION BY j->''a'') FROM @p');
SELECT p_check('SELECT a.id, b.id FROM @p a JOIN @p b ON a.j = b.j');
SELECT p_check('SELECT a.id, b.id FROM @p a JOIN @p b ON a.j->''a'' = b.j');
SELECT twins('SELECT id FROM @p ORDER BY j DESC, id', true), twins('SELECT id FROM @p ORDER BY i2 DESC, id', true);
SELECT twins('SELECT j->''a'', count(*) FROM @p GROUP BY 1'), twins('SELECT DISTINCT j FROM @p'), twins('SELECT id FROM @p ORDER BY j, id', true);
-- Who computes groups of which several forms are there.
CREATE FUNCTION p_again(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    line text;
    found text := 'the engine alone';
BEGIN
    PERFORM set_config('lake.engine', 'force', true);
    FOR line IN EXECUTE 'EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) ' || query LOOP
        IF line LIKE '%Run by Postgres%' THEN
            found := 'Postgres again';
        END IF;
    END LOOP;
    PERFORM set_config('lake.engine', 'on', true);
    RETURN found;
END $$;
SELECT p_again('SELECT DISTINCT i FROM p_lake');
SELECT p_again('SELECT i, count(*) FROM p_lake WHERE id <> 3 GROUP BY i');
SELECT p_again('SELECT max(n) FROM (SELECT count(*) AS n FROM p_lake GROUP BY i) x');
SELECT p_again('SELECT DISTINCT i2 FROM p_lake');
SELECT p_again('SELECT DISTINCT CASE id WHEN 1 THEN jsonb ''1'' WHEN 2 THEN jsonb ''1.0'' ELSE j END FROM p_lake');
SELECT p_again('SELECT DISTINCT j FROM p_lake');

-- numbers from texts
SELECT p_values($$
t::int
t::bigint
CASE WHEN id NOT IN (2, 8) THEN t::smallint END
CASE WHEN id IN (2, 8) THEN t::smallint END
CASE WHEN id < 11 AND id NOT IN (2, 8) THEN t::numeric(7,2) END
CASE WHEN id IN (2, 8) THEN t::numeric(7,2) END
t::numeric(38,10)
CASE WHEN id < 3 THEN t::int END
$$);
SELECT p_calls($$
sum(CASE WHEN id < 4 THEN t::float8 + 0 END)
$$);
DROP FUNCTION p_values, p_calls, p_check, p_again;
DROP TABLE p_heap, p_lake;
RESET timezone;
