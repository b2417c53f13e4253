-- Purpose: aggregates that the engine computes give what heap gives, to the last digit, and are lowered. Each list prints only
-- what differs.
CREATE TABLE a_heap (
    id int, g int, b bool, i2 smallint, i4 int, i8 bigint, f4 real, f8 double precision, n numeric(12,2), w numeric(30,10), z numeric(38,20),
    t text COLLATE "C", v varchar(20) COLLATE "C", c char(5) COLLATE "C", d date, ts timestamp, tz timestamptz, ti time, u uuid);
CREATE TABLE a_lake (LIKE a_heap) USING iceberg;
-- Group 6 has nulls only, group 100 one row, group 101 equal values, group 102 two rows.
INSERT INTO a_heap
SELECT i, i % 7, i % 3 = 0, i * 37 % 201 - 100, i * 7919 % 100003 - 50000, (i * 7919 % 100003 - 50000) * 1000003::bigint,
       (i * 31 % 97 - 48.5) / 8, (i * 53 % 997 - 498.5) / 7, (i * 7919 % 100003 - 50000) / 100.0, (i * 104729 % 1000003) / 7.0, (i * 7 % 11) / 100000.0,
       CASE i % 5 WHEN 0 THEN '' ELSE 't' || i * 13 % 50 || repeat('ä', i % 3) END, 'v' || i % 9, chr(97 + i % 26) || CASE WHEN i % 2 = 0 THEN E'\t' ELSE '' END,
       date '2020-01-01' + i * 17 % 1000, timestamp '2020-01-01' + i * 17 % 1000 * interval '1 minute', timestamptz '2020-01-01 00:00+00' + i * 19 % 500 * interval '1 hour',
       time '00:00' + i * 23 % 1440 * interval '1 minute', md5((i % 40)::text)::uuid
FROM generate_series(1, 3000) i WHERE i % 7 <> 6;
INSERT INTO a_heap (id, g) SELECT i, 6 FROM generate_series(1, 3000) i WHERE i % 7 = 6;
UPDATE a_heap SET b = NULL, i4 = NULL, f8 = NULL, n = NULL, t = NULL, c = NULL, d = NULL WHERE id % 11 = 0;
INSERT INTO a_heap VALUES
    (5001, 100, true, 32767, 2147483647, 9223372036854775807, 1.5, 'Infinity', 0.01, 0.0000000001, 1, 'one', 'one', 'one', '9999-12-31', '9999-12-31', '9999-12-31', '23:59', md5('')::uuid),
    (5002, 101, false, 5, 5, 5, 5, 5, 5, 5, 5, 'x', 'x', 'x', '2020-01-01', '2020-01-01', '2020-01-01', '01:00', md5('x')::uuid),
    (5003, 101, false, 5, 5, 5, 5, 5, 5, 5, 5, 'x', 'x', 'x', '2020-01-01', '2020-01-01', '2020-01-01', '01:00', md5('x')::uuid),
    (5004, 102, true, 1, 1, 1, 'NaN', 'NaN', 9999999999.99, 1, 0.00000000000000000001, 'a', 'a', 'a', '2020-01-01', '2020-01-01', '2020-01-01', '01:00', md5('a')::uuid),
    (5005, 102, true, 2, 2, 2, '-Infinity', 1, -9999999999.99, 2, 0, 'b', 'b', 'b', '2020-01-02', '2020-01-02', '2020-01-02', '02:00', md5('b')::uuid);
SET lake.bulk_rows = 0;
INSERT INTO a_lake SELECT * FROM a_heap WHERE id % 3 <> 0;
SET lake.bulk_rows = -1;
INSERT INTO a_lake SELECT * FROM a_heap WHERE id % 3 = 0;
ANALYZE a_heap, a_lake;

-- "ok" if the engine runs the query and answers as heap.
CREATE FUNCTION a_check(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    why text;
BEGIN
    PERFORM set_config('lake.engine', 'force', true);
    BEGIN
        EXECUTE 'EXPLAIN ' || replace(query, '@a', 'a_lake');
    EXCEPTION WHEN feature_not_supported THEN
        GET STACKED DIAGNOSTICS why = PG_EXCEPTION_DETAIL;
    END;
    PERFORM set_config('lake.engine', 'on', true);
    RETURN coalesce('not lowered: ' || why, twins(query));
END $$;
-- Those of the calls, one a line, that aren't: of groups, of all rows, of none, and of some rows only.
CREATE FUNCTION a_calls(calls text) RETURNS SETOF text LANGUAGE sql AS $$
    SELECT e || ': ' || answer
    FROM string_to_table(trim(E'\n' FROM calls), E'\n') e,
         unnest(ARRAY['SELECT g, %s FROM @a GROUP BY g', 'SELECT %s FROM @a', 'SELECT %s FROM @a WHERE id < 0',
                      'SELECT id %% 50, %s FILTER (WHERE id %% 4 <> 1), count(*) FROM @a GROUP BY 1',
                      'SELECT g, b, %s FROM @a GROUP BY ROLLUP (g, b)']) q,
         a_check(format(q, e)) answer
    WHERE answer <> 'ok' $$;

-- bits, and the least and the largest
SELECT a_calls($$
bool_and(b)
bool_or(b)
every(b)
bool_and(i4 > -60000)
bool_or(t = 't13')
bit_and(i2)
bit_or(i2)
bit_xor(i2)
bit_and(i4)
bit_or(i4)
bit_xor(i4)
bit_and(i8)
bit_or(i8)
bit_xor(i8)
bit_xor(DISTINCT i2)
bit_xor(i4 % 16)
min(i2)
max(i8)
min(f4)
max(f4)
min(f8)
max(f8)
min(-f8)
min(n)
max(w)
min(t)
max(t)
min(v)
max(v)
min(c)
max(c)
min(d)
max(ts)
max(tz)
min(ti)
$$);
-- variances and standard deviations
SELECT a_calls($$
var_pop(i2)
var_samp(i2)
variance(i2)
stddev_pop(i2)
stddev_samp(i2)
stddev(i2)
var_pop(i4)
var_samp(i4)
variance(i4)
stddev_pop(i4)
stddev_samp(i4)
stddev(i4)
var_pop(i8)
var_samp(i8)
variance(i8)
stddev_pop(i8)
stddev_samp(i8)
stddev(i8)
var_pop(n)
var_samp(n)
variance(n)
stddev_pop(n)
stddev_samp(n)
stddev(n)
var_pop(w)
stddev(w)
var_samp(n * n)
stddev(n + i4)
stddev_pop(n - 9999999999)
variance(DISTINCT i2)
stddev(DISTINCT n)
stddev_pop(CASE WHEN b THEN n END)
var_pop(i4 / 1000)
stddev(i8 / 1000003)
$$);
-- The same of floats, up to the order in which they are added up.
CREATE FUNCTION a_rounded(calls text) RETURNS SETOF text LANGUAGE sql AS $$
    SELECT e || ': ' || answer
    FROM string_to_table(trim(E'\n' FROM calls), E'\n') e,
         unnest(ARRAY['SELECT g, round((%s)::numeric, 4) FROM @a GROUP BY g', 'SELECT round((%s)::numeric, 4) FROM @a WHERE id < 5000',
                      'SELECT round((%s)::numeric, 2) FROM @a', 'SELECT %s FROM @a WHERE id < 0', 'SELECT %s FROM @a WHERE id = 5001',
                      'SELECT id %% 50, round((%s FILTER (WHERE id %% 4 <> 1))::numeric, 4), count(*) FROM @a GROUP BY 1',
                      'SELECT g, b, round((%s)::numeric, 4) FROM @a WHERE id < 5000 GROUP BY ROLLUP (g, b)']) q,
         a_check(format(q, e)) answer
    WHERE answer <> 'ok' $$;
SELECT a_rounded($$
sum(f4)
avg(f4)
avg(f8)
var_pop(f8)
var_samp(f4)
variance(f8)
variance(f4)
stddev_pop(f4)
stddev_samp(f8)
stddev(f8)
stddev(n::float8)
corr(f8, i2)
covar_pop(f8, i2)
covar_samp(f4, f8)
regr_avgx(f8, f4)
regr_avgy(f8, i4)
regr_intercept(f8, i2)
regr_r2(f8, i2)
regr_slope(f8, i2)
regr_sxx(f8, i2)
regr_sxy(f8, i2)
regr_syy(f8, i2)
$$);
SELECT twins('SELECT avg(f8 * 1e200) FROM @a WHERE id < 5000');
SELECT twins('SELECT g, stddev(f8 * 1e200), corr(f8 * 1e200, i2) FROM @a WHERE id < 5000 GROUP BY g');
SELECT twins('SELECT sum(f4 * 1e38::real) FROM @a WHERE id < 5000 AND f4 > 0');
SELECT twins('SELECT corr(1 / i2, f8) FROM @a');
SELECT twins('SELECT g, sum(-abs(f8) * 0)::text, sum((-abs(f4) * 0)::real)::text FROM @a WHERE id < 5000 GROUP BY g');
SELECT twins('SELECT g FROM @a WHERE id < 5000 GROUP BY g HAVING avg(f8) > -1000 AND stddev(f4) > 0 ORDER BY g', true);
-- all digits of roots of variances of every size
SELECT a_check(format('SELECT g, id / 10, stddev_pop(n * %s), stddev_samp(n * %1$s), var_pop(n * %1$s) FROM @a GROUP BY 1, 2', x))
FROM (VALUES ('0.000001'), ('0.01'), ('1000'), ('12345.6789'), ('1000000.1')) v(x);
-- values of a certain share, and the most frequent ones
SELECT a_calls($$
percentile_disc(0.5) WITHIN GROUP (ORDER BY i4)
percentile_disc(0) WITHIN GROUP (ORDER BY i8)
percentile_disc(1) WITHIN GROUP (ORDER BY i2 DESC)
percentile_disc(0.25) WITHIN GROUP (ORDER BY n)
percentile_disc(0.1) WITHIN GROUP (ORDER BY t)
percentile_disc(0.9) WITHIN GROUP (ORDER BY v DESC NULLS FIRST)
percentile_disc(0.333) WITHIN GROUP (ORDER BY d)
percentile_disc(0.333) WITHIN GROUP (ORDER BY ts DESC)
percentile_disc(0.5) WITHIN GROUP (ORDER BY u)
percentile_disc(0.5) WITHIN GROUP (ORDER BY f8)
percentile_disc(0.99) WITHIN GROUP (ORDER BY f4 DESC)
percentile_disc(0.5) WITHIN GROUP (ORDER BY b)
percentile_cont(0.5) WITHIN GROUP (ORDER BY f8)
percentile_cont(0.123456789) WITHIN GROUP (ORDER BY f8 DESC)
percentile_cont(0.9) WITHIN GROUP (ORDER BY i4)
percentile_cont(0.75) WITHIN GROUP (ORDER BY i8 DESC)
percentile_cont(0.3) WITHIN GROUP (ORDER BY n)
percentile_cont(0) WITHIN GROUP (ORDER BY f4)
percentile_cont(1) WITHIN GROUP (ORDER BY f4)
mode() WITHIN GROUP (ORDER BY i2)
mode() WITHIN GROUP (ORDER BY i2 DESC)
mode() WITHIN GROUP (ORDER BY t)
mode() WITHIN GROUP (ORDER BY v DESC)
mode() WITHIN GROUP (ORDER BY u)
mode() WITHIN GROUP (ORDER BY n DESC)
mode() WITHIN GROUP (ORDER BY f8)
mode() WITHIN GROUP (ORDER BY b DESC)
mode() WITHIN GROUP (ORDER BY date_trunc('month', ts))
$$);
-- lists
SELECT a_calls($$
array_agg(i4 ORDER BY id)
array_agg(i2 ORDER BY id DESC)
array_agg(i8 ORDER BY i4 NULLS FIRST, id)
array_agg(t ORDER BY t, id)
array_agg(c ORDER BY id)
array_agg(v ORDER BY v DESC, d DESC NULLS LAST, id)
array_agg(b ORDER BY f8 DESC, id)
array_agg(d ORDER BY c, id)
array_agg(ts ORDER BY ts)
array_agg(u ORDER BY u)
array_agg(f4 ORDER BY id)
string_agg(t, ',' ORDER BY id)
string_agg(t, '' ORDER BY t DESC)
string_agg(v, NULL ORDER BY id)
string_agg(v || '!', ', ' ORDER BY n, id)
string_agg(c, '|' ORDER BY id)
string_agg(t, U&'\00e4\20ac' ORDER BY i8 DESC, id)
array_agg(DISTINCT i4)
array_agg(DISTINCT t ORDER BY t DESC)
array_agg(DISTINCT b)
array_agg(DISTINCT d ORDER BY d NULLS FIRST)
array_agg(DISTINCT u), array_agg(u ORDER BY u, id)
array_agg(DISTINCT v)
array_agg(DISTINCT i2), count(DISTINCT i4), string_agg(DISTINCT t, '')
string_agg(DISTINCT t, ',')
string_agg(DISTINCT t, '; ' ORDER BY t DESC)
$$);
-- an order that makes no difference; other calls
SELECT a_calls($$
sum(i4 ORDER BY id)
sum(n ORDER BY t DESC, n)
avg(i8 ORDER BY d)
count(t ORDER BY t)
min(t ORDER BY id)
max(d ORDER BY f8 DESC)
bool_and(b ORDER BY b)
stddev(n ORDER BY id)
sum(DISTINCT i4 ORDER BY i4)
count(DISTINCT t ORDER BY t)
regr_count(f8, f4)
regr_count(i4, n)
regr_count(f8, 1)
$$);

-- one query with many of them, and conditions on them
SELECT a_check('SELECT g, count(DISTINCT i4), stddev(i4), variance(DISTINCT i4), sum(i4), percentile_disc(0.5) WITHIN GROUP (ORDER BY i4), array_agg(i2 ORDER BY id) FROM @a GROUP BY g');
SELECT a_check('SELECT g, count(DISTINCT i4), stddev(n), bool_or(b), bit_xor(DISTINCT i4), min(f8) FROM @a GROUP BY g');
SELECT a_check('SELECT g, stddev_pop(n) + 1, round(var_pop(n), 3) FROM @a GROUP BY g HAVING bool_or(b) AND count(*) > 2');
SELECT twins('SELECT g FROM @a GROUP BY g HAVING stddev(i4) > 10 ORDER BY stddev(i4), g', true);
SELECT a_check('SELECT id, max(f8), min(c), string_agg(t, '','' ORDER BY id) FROM @a GROUP BY id');
SELECT a_check('SELECT g, sum(1000 / i2) FILTER (WHERE i2 <> 0), min(1000 / i4) FILTER (WHERE i4 <> 0), array_agg(1000 / i2 ORDER BY id) FILTER (WHERE i2 <> 0) FROM @a GROUP BY g');
SELECT a_check('SELECT g, string_agg(CASE WHEN 1000 / i2 > 5 THEN t ELSE v END, '','' ORDER BY id) FILTER (WHERE CASE WHEN i2 <> 0 THEN true END) FROM @a GROUP BY g');
SELECT twins('SELECT g, sum(i4 ORDER BY 1000 / i2) FROM @a GROUP BY g');
-- lists of rows that a subquery orders
SELECT a_check('SELECT array_agg(i4) FROM (SELECT i4 FROM @a ORDER BY id) x');
SELECT a_check('SELECT string_agg(t, '','') FROM (SELECT t FROM @a WHERE id < 500 ORDER BY i8 DESC, id LIMIT 100) x');
SELECT a_check('SELECT g, array_agg(i2), string_agg(v, ''|'') FILTER (WHERE b), count(*) FROM (SELECT * FROM @a ORDER BY g, id) x GROUP BY g');
SELECT a_check('SELECT g, array_agg(d) FROM (SELECT * FROM @a ORDER BY t NULLS FIRST, id DESC) x GROUP BY g');
-- the elements of a row come in their order, too
SELECT twins('SELECT array_agg(u) FROM (SELECT unnest(ARRAY[id % 3, 7, id % 5]) AS u FROM @a ORDER BY id) x');
SELECT twins('SELECT array_agg(u) FROM (SELECT * FROM @a ORDER BY id) x, unnest(ARRAY[x.id % 3, 7, x.id % 5]) u');
-- zeros that differ in their sign
CREATE TABLE a_zeros_heap (id int, g int, f double precision);
CREATE TABLE a_zeros_lake (LIKE a_zeros_heap) USING iceberg;
INSERT INTO a_zeros_heap VALUES (1, 1, 0), (2, 1, '-0'), (3, 1, 1), (4, 2, '-0'), (5, 2, 5), (6, 3, -1), (7, 3, 0), (8, 3, '-0'), (9, 3, '-0');
SET lake.bulk_rows = 0;
INSERT INTO a_zeros_lake SELECT * FROM a_zeros_heap;
RESET lake.bulk_rows;
SELECT twins('SELECT g, min(f), max(f) FROM @a_zeros GROUP BY g');
SELECT twins('SELECT min(f), max(-f) FROM @a_zeros WHERE g = 1');
SELECT twins('SELECT g, mode() WITHIN GROUP (ORDER BY f), percentile_cont(0) WITHIN GROUP (ORDER BY f) FROM @a_zeros WHERE g = 2 GROUP BY g');
SELECT twins('SELECT g, percentile_disc(0.1) WITHIN GROUP (ORDER BY f), percentile_cont(0) WITHIN GROUP (ORDER BY f) FROM @a_zeros WHERE g = 3 GROUP BY g');
-- sums of squares beyond 128 bits
SELECT twins('SELECT stddev(i8), var_pop(n * n) FROM @a WHERE id > 5000');
SELECT twins('SELECT g, stddev(i8 * 1.0), variance(i8 - 1) FROM @a WHERE id > 5000 AND g <> 101 GROUP BY g');
SELECT twins('SELECT var_samp(i8) FROM (SELECT 9223372036854775807 - id AS i8 FROM @a) x');
-- errors
SELECT twins('SELECT percentile_disc(1.5) WITHIN GROUP (ORDER BY i4) FROM @a');
SELECT twins('SELECT percentile_cont(NULL::float8) WITHIN GROUP (ORDER BY f8) FROM @a');
SELECT twins('SELECT bool_and(1 / i2 > 0) FROM @a');
-- what stays in Postgres, and why
SELECT e || ': ' || a_check('SELECT g, ' || e || ' FROM @a GROUP BY g') AS answer FROM unnest(ARRAY[
    'corr(DISTINCT f8, f4)', 'stddev(f8 ORDER BY id)', 'array_agg(i4)', 'array_agg(DISTINCT c)', 'string_agg(t, v ORDER BY id)', 'array_agg(n ORDER BY id)',
    'percentile_disc(2) WITHIN GROUP (ORDER BY i4)', 'variance(z)', 'sum(f8 ORDER BY id)']) e;
SELECT a_check('SELECT id, bool_or(b) OVER (PARTITION BY g) FROM @a');
DROP FUNCTION a_calls, a_rounded, a_check;
DROP TABLE a_heap, a_lake, a_zeros_heap, a_zeros_lake;
