-- Purpose: instants, time zones and intervals: the engine computes what heap computes, also when a plan is run again under another time
-- zone. Each list prints only what differs.
SET timezone = 'UTC';
SET datestyle = 'ISO, MDY';
CREATE TABLE z_heap (id int, tz timestamptz, tz2 timestamptz, ts timestamp, ts2 timestamp, d date);
CREATE TABLE z_lake (LIKE z_heap) USING iceberg;
INSERT INTO z_heap VALUES
    (1, '1970-01-01 00:00+00', '2024-01-31 23:30+00', '1970-01-01', '2024-01-31 23:30', '1970-01-01'),
    (2, '2024-03-31 00:59:59.999999+00', '2024-03-31 01:00+00', '2024-03-31 02:30', '2024-03-31 03:00', '2024-03-31'),
    (3, '2024-10-27 00:30+00', '2024-10-27 01:30+00', '2024-10-27 02:30', '2024-10-27 03:30', '2024-10-27'),
    (4, '2024-02-29 12:34:56.789012+00', '2023-02-28 12:34:56.789012+00', '2024-02-29 12:34:56.789012', '2023-02-28', '2024-02-29'),
    (5, '2000-12-31 23:59:59.999999+00', '2001-01-01 00:00+00', '2000-12-31 23:59:59.999999', '2001-01-01', '2000-12-31'),
    (6, '0001-01-01 00:00+00 BC', '0001-12-31 23:00+00 BC', '0001-01-01 BC', '0001-12-31 23:00 BC', '0001-01-01 BC'),
    (7, '0044-03-15 10:00+00 BC', '1600-02-29 00:00+00', '0044-03-15 10:00 BC', '1600-02-29', '0044-03-15 BC'),
    (8, NULL, '2024-01-01 00:00+00', NULL, '2024-01-01', NULL),
    (9, '2024-01-01 00:00+00', NULL, '2024-01-01', NULL, '2024-01-01'),
    (10, '9999-12-31 23:59:59+00', '1900-01-01 00:00+00', '9999-12-31 23:59:59', '1900-01-01', '9999-12-31'),
    (11, '2008-12-30 22:00+00', '2005-01-02 00:00+00', '2008-12-30 22:00', '2005-01-02', '2008-12-30'),
    (12, '1969-12-31 23:59:59.5+00', '1969-07-20 20:17:40+00', '1969-12-31 23:59:59.5', '1969-07-20 20:17:40', '1969-12-31');
SET lake.bulk_rows = 0;
INSERT INTO z_lake SELECT * FROM z_heap WHERE id % 3 <> 0;
SET lake.bulk_rows = -1;
INSERT INTO z_lake SELECT * FROM z_heap WHERE id % 3 = 0;
ANALYZE z_heap, z_lake;
-- Makes a plan that is lowered, and runs it in several time zones.
CREATE FUNCTION z_check(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    zone text;
    heap text;
    lake text;
    answer text := 'ok';
BEGIN
    PERFORM set_config('lake.engine', 'force', true), set_config('timezone', 'UTC', true);
    EXECUTE 'PREPARE of_z_heap AS ' || replace(query, '@z', 'z_heap');
    EXECUTE 'PREPARE of_z_lake AS ' || replace(query, '@z', 'z_lake');
    FOREACH zone IN ARRAY '{UTC,Etc/GMT-5,<+0330>-03:30,Europe/Berlin,America/New_York,Etc/GMT+12,UTC}'::text[] LOOP
        PERFORM set_config('timezone', zone, true);
        heap := rows_or_error('EXECUTE of_z_heap', false);
        lake := rows_or_error('EXECUTE of_z_lake', false);
        IF lake IS DISTINCT FROM heap THEN
            answer := format('DIFFERS in %s: heap %L, lake %L', zone, left(heap, 300), left(lake, 300));
            EXIT;
        END IF;
    END LOOP;
    DEALLOCATE of_z_heap;
    DEALLOCATE of_z_lake;
    RETURN answer;
END $$;
CREATE FUNCTION z_values(expressions text) RETURNS SETOF text LANGUAGE sql AS $$
    SELECT e || ': ' || answer
    FROM string_to_table(trim(E'\n' FROM expressions), E'\n') e, z_check('SELECT id, ' || e || ', count(*) FROM @z GROUP BY 1, 2') answer
    WHERE answer <> 'ok' $$;
CREATE FUNCTION z_sums(expressions text) RETURNS SETOF text LANGUAGE sql AS $$
    SELECT e || ': ' || answer
    FROM string_to_table(trim(E'\n' FROM expressions), E'\n') e, z_check('SELECT id, sum((' || e || ') + 0) FROM @z GROUP BY 1') answer
    WHERE answer <> 'ok' $$;

-- fields
SELECT z_values($$
extract(millennium from tz)
extract(century from tz)
extract(decade from tz)
extract(year from tz)
extract(isoyear from tz)
extract(quarter from tz)
extract(month from tz)
extract(week from tz)
extract(day from tz)
extract(dow from tz)
extract(isodow from tz)
extract(doy from tz)
extract(hour from tz)
extract(minute from tz)
extract(second from tz)
extract(milliseconds from tz)
extract(microseconds from tz)
extract(epoch from tz)
date_trunc('millennium', tz)
date_trunc('century', tz)
date_trunc('decade', tz)
date_trunc('year', tz)
date_trunc('quarter', tz)
date_trunc('month', tz)
date_trunc('week', tz)
date_trunc('day', tz)
date_trunc('hour', tz)
date_trunc('minute', tz)
date_trunc('second', tz)
date_trunc('milliseconds', tz)
date_trunc('day', d)
date_trunc('month', d)
$$);
SELECT z_sums($$
date_part('year', tz)
date_part('hour', tz)
date_part('second', tz)
date_part('epoch', tz)
$$);
-- conversions
SELECT z_values($$
tz::date
tz::timestamp
tz::time
ts::time
ts::timestamptz
d::timestamptz
tz AT TIME ZONE 'UTC'
tz AT TIME ZONE 'GMT'
tz AT TIME ZONE 'Etc/GMT+5'
ts AT TIME ZONE 'UTC'
ts AT TIME ZONE 'Etc/GMT-14'
(tz AT TIME ZONE 'UTC')::date
date_trunc('day', tz AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'
$$);
-- What an abbreviation means can be set.
PREPARE q_heap AS SELECT id, tz AT TIME ZONE 'EST', count(*) FROM z_heap GROUP BY 1, 2;
PREPARE q_lake AS SELECT id, tz AT TIME ZONE 'EST', count(*) FROM z_lake GROUP BY 1, 2;
SET plan_cache_mode = force_generic_plan;
SELECT rows_or_error('EXECUTE q_heap', false) = rows_or_error('EXECUTE q_lake', false) AS alike;
SET timezone_abbreviations = 'Australia';
SELECT rows_or_error('EXECUTE q_heap', false) = rows_or_error('EXECUTE q_lake', false) AS alike;
RESET timezone_abbreviations;
RESET plan_cache_mode;
DEALLOCATE ALL;
-- comparisons
SELECT z_values($$
tz = ts
tz <> d
tz < ts2
ts >= tz2
d <= tz
d > tz2
tz >= date '2024-01-01'
tz < timestamp '2024-03-31 02:30'
timestamp '2024-10-27 02:30' <= tz
date '2024-03-31' = tz2
tz BETWEEN date '2000-01-01' AND timestamp '2024-03-31 03:00'
tz::date = d
$$);
-- intervals
SELECT z_values($$
tz + interval '1 month'
tz - interval '1 month'
tz + interval '13 months -1 day 25:00'
tz + interval '1 day'
tz - interval '24:00'
tz + interval '1 microsecond'
ts - ts2 > interval '1 day'
ts - ts2 <= interval '30 days'
tz - tz2 < interval '-1 month'
tz2 - tz >= ts2 - ts
interval '1 year' = ts - ts2
tz - tz2 <> interval '-1 hour'
extract(epoch from ts - ts2)
extract(epoch from tz2 - tz)
round(extract(epoch from tz2 - tz) / 3600, 1)
date_bin('15 minutes', ts, '2001-01-01')
date_bin('1 day 1 hour', ts2, '2024-01-01 00:00:01')
date_bin('7 days', tz, '2001-01-01 00:00+00')
$$);
SELECT z_sums($$
date_part('epoch', ts - ts2)
date_part('epoch', tz2 - tz)
$$);
-- the time of the statement
SELECT z_values($$
tz < now()
tz > now() - interval '1 month'
tz >= current_timestamp - interval '10 years 1 day'
tz < current_timestamp(0)
tz >= date_trunc('day', now())
tz < date_trunc('month', now() AT TIME ZONE 'Europe/Berlin')
d < current_date
d >= current_date - 30
d > current_date - interval '3 years'
ts < localtimestamp
ts2 >= date_trunc('year', localtimestamp) - interval '1 day' * 400
tz::date < current_date
tz BETWEEN transaction_timestamp() - interval '1000 years' AND transaction_timestamp()
$$);
-- An error is one only where Postgres comes to it.
SELECT z_check('SELECT count(*) FROM @z WHERE tz < now() + interval ''300000 years''');
SELECT z_check('SELECT count(*) FROM @z WHERE id > 100 AND tz < now() + interval ''300000 years''');
SELECT z_check('SELECT count(*) FROM @z WHERE tz < date ''5000000-01-01''');
SELECT z_check('SELECT count(*) FROM @z WHERE id < 3 OR tz < timestamp ''infinity''');
-- parameters
PREPARE q_heap(timestamptz, date) AS
    SELECT id, count(*) FROM z_heap WHERE tz >= $1 - interval '1 day' AND tz < $2 AND ts > $2 - interval '3000 years' GROUP BY id;
PREPARE q_lake(timestamptz, date) AS
    SELECT id, count(*) FROM z_lake WHERE tz >= $1 - interval '1 day' AND tz < $2 AND ts > $2 - interval '3000 years' GROUP BY id;
CREATE FUNCTION z_alike(given text) RETURNS boolean LANGUAGE sql AS $$
    SELECT rows_or_error('EXECUTE q_heap(' || given || ')', false) IS NOT DISTINCT FROM rows_or_error('EXECUTE q_lake(' || given || ')', false) $$;
SET plan_cache_mode = force_generic_plan;
SET lake.engine = force;
SELECT every(z_alike(given)) FROM (VALUES ('''2024-01-01'', ''2024-12-31'''), ('NULL, ''2024-12-31'''), ('''-infinity'', ''infinity'''),
    ('''4714-11-24 00:00+00 BC'', ''2024-12-31'''), ('''1900-01-01'', ''2024-03-31''')) v(given);
SET timezone = 'America/Los_Angeles';
SELECT every(z_alike(given)) FROM (VALUES ('''2024-03-31 01:00+00'', ''2024-10-27'''), ('''1969-01-01'', ''1970-01-01''')) v(given);
RESET plan_cache_mode;
RESET lake.engine;
DEALLOCATE ALL;
DROP FUNCTION z_alike;
-- What needs the time zone of rows isn't lowered in this one; what doesn't is.
SET lake.engine = force;
SELECT sqlstate_of('SELECT date_trunc(''day'', tz), count(*) FROM z_lake GROUP BY 1'), sqlstate_of('SELECT tz::date, count(*) FROM z_lake GROUP BY 1'),
    sqlstate_of('SELECT count(*) FROM z_lake WHERE tz = ts'), sqlstate_of('SELECT count(*) FROM z_lake WHERE tz > current_date'),
    sqlstate_of('SELECT extract(epoch from tz), count(*) FROM z_lake GROUP BY 1'), sqlstate_of('SELECT tz + interval ''1 hour'', count(*) FROM z_lake GROUP BY 1');
RESET lake.engine;
SET timezone = 'UTC';
-- near the first and the last timestamps
INSERT INTO z_heap (id, tz, tz2, ts) VALUES (20, '4714-11-24 00:00+00 BC', '294247-01-10 04:00:54.775807+00', '4714-11-24 BC');
INSERT INTO z_lake SELECT * FROM z_heap WHERE id = 20;
SELECT z_check('SELECT id, tz::timestamp, count(*) FROM @z WHERE id = 20 GROUP BY 1, 2');
SELECT z_check('SELECT id, tz2::date, count(*) FROM @z WHERE id = 20 GROUP BY 1, 2');
SELECT z_check('SELECT id, date_trunc(''week'', tz), count(*) FROM @z WHERE id = 20 GROUP BY 1, 2');
SELECT z_check('SELECT id, ts::timestamptz, count(*) FROM @z WHERE id = 20 GROUP BY 1, 2');
SELECT z_check('SELECT id, tz - interval ''1 day'', count(*) FROM @z WHERE id = 20 GROUP BY 1, 2');
SELECT z_check('SELECT id, tz2 + interval ''1 month -31 days'', count(*) FROM @z WHERE id = 20 GROUP BY 1, 2');
SELECT z_check('SELECT id, extract(epoch from tz2 - tz), count(*) FROM @z WHERE id = 20 GROUP BY 1, 2');
SELECT z_check('SELECT id, date_bin(''400 days'', tz, ''2000-01-01 00:00+00''), count(*) FROM @z WHERE id = 20 GROUP BY 1, 2');
DROP FUNCTION z_values, z_sums, z_check;
DROP TABLE z_heap, z_lake;
RESET datestyle;
RESET timezone;
