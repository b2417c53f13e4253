-- Purpose: functions that the engine computes give what heap gives for values at their limits, errors included, and are
-- lowered. Each list prints only what differs.
CREATE TABLE f_heap (
    id int, i2 smallint, i4 int, i8 bigint, f4 real, f8 double precision, n numeric(12,2), w numeric(30,10),
    t text, t2 varchar(20), c char(5), b bool, d date, ts timestamp, ti time);
CREATE TABLE f_lake (LIKE f_heap) USING iceberg;
INSERT INTO f_heap VALUES
    (1, 0, 0, 0, 0, 0, 0, 0, '', '', '', false, '1970-01-01', '1970-01-01', '00:00'),
    (2, 1, 1, 1, 1, 1, 1, 1, 'a', 'a', 'a', true, '1970-01-02', '1970-01-01 00:00:00.000001', '00:00:00.000001'),
    (3, -1, -1, -1, -1, -1, -1, -1, 'ahoj', 'hoj', 'ahoj', false, '1969-12-31', '1969-12-31 23:59:59.999999', '23:59:59.999999'),
    (4, 32767, 2147483647, 9223372036854775807, 3.4028235e38, 1.7976931348623157e308, 9999999999.99, 99999999999999999999.9999999999,
        'äöüß€日本語', 'ö', 'äöüß€', true, '5874897-12-31', '294247-01-10 04:00:54.775807', '12:34:56.789'),
    (5, -32768, -2147483648, -9223372036854775808, -3.4028235e38, -1.7976931348623157e308, -9999999999.99, -99999999999999999999.9999999999,
        '  blanks  ', ' ', ' b ', true, '4714-11-24 BC', '4714-11-24 00:00:00 BC', '01:02:03'),
    (6, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
    (7, 2, 3, 4, 0.5, 0.5, 0.5, 0.5, 'xxabcxx', 'x', 'x', true, '2000-02-29', '2000-02-29 12:30:45.5', '12:30:45.5'),
    (8, -2, -3, -4, -0.5, -0.5, -0.5, -0.5, 'ABC abc', 'b', 'ABC', false, '1999-12-31', '1999-12-31 23:59:59.999999', '23:59'),
    (9, 5, 31, 63, 1.5, 1.5, 1.5, 1.0000000005, '100%', '%', '1%', true, '2004-12-31', '2004-02-29 15:44:17.71393', '15:44:17.71393'),
    (10, 7, 32, 64, 2.5, 2.5, 2.5, -1.0000000005, 'a_b', '_', 'a_b', false, '2005-01-01', '2005-01-01 00:00:00', '06:00'),
    (11, -7, -32, -64, -2.5, -2.5, -2.5, 0.0000000001, E'tab\tand\nline', E'\t', E'\t', true, '2008-12-29', '2008-12-30 01:01:01', '01:01:01'),
    (12, 100, 12345, 1234567890123, 0.1, 0.1, 0.01, 0.00005, 'a\b', '\', 'a\', false, '0001-01-01 BC', '0001-12-31 BC', '10:10'),
    (13, 3, 7, 10, 'NaN', 'NaN', 123.45, 3.1415926535, 'bab', 'ba', 'ba', true, '0001-01-01', '0001-01-01', '11:11'),
    (14, 4, 8, 11, 'Infinity', 'Infinity', -123.45, -3.1415926535, 'yabadabadoo', 'ba', 'c', false, '2024-01-31', '2024-01-31 10:00', '05:05:05'),
    (15, 6, 9, 12, '-Infinity', '-Infinity', 99.99, 12345678901234567890.0123456789, 'X', 'X', 'X', true, '0044-03-15 BC', '0101-03-15 BC', '04:04'),
    (16, 9, 10, 13, 1e-40, 5e-324, 33.33, 20000, 'ab', 'abc', 'ab', NULL, '2012-01-01', '2012-01-01 00:00:00.999', '03:03:03.03'),
    (17, 11, 65536, 4294967296, 16777216, 9007199254740993, 0.02, 40000, 'é', 'e', 'é', NULL, '1900-12-31', '1901-01-01', '02:02'),
    (18, 12, 40000, 3000000000, 32767.5, 2147483647.5, -0.01, 9999.9999999999, 'Straße', 'SS', 'ß', true, '9999-12-31', '9999-12-31 23:59:59', '23:00');
SET lake.bulk_rows = 0;
INSERT INTO f_lake SELECT * FROM f_heap WHERE id % 3 <> 0;
SET lake.bulk_rows = -1;
INSERT INTO f_lake SELECT * FROM f_heap WHERE id % 3 = 0;
ANALYZE f_heap, f_lake;
SELECT * FROM hot_cold('f_lake');

-- "ok" if the engine runs the query and answers as heap; if that is an error, row by row.
CREATE FUNCTION f_check(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    why text;
    answer text;
    k int;
BEGIN
    PERFORM set_config('lake.engine', 'force', true);
    BEGIN
        EXECUTE 'EXPLAIN ' || replace(query, '@f', 'f_lake');
    EXCEPTION WHEN feature_not_supported THEN
        GET STACKED DIAGNOSTICS why = PG_EXCEPTION_DETAIL;
    END;
    PERFORM set_config('lake.engine', 'on', true);
    IF why IS NOT NULL THEN
        RETURN 'not lowered: ' || why;
    END IF;
    answer := twins(query);
    IF answer = 'ok' AND rows_or_error(replace(query, '@f', 'f_heap'), false) LIKE 'SQLSTATE %' THEN
        FOR k IN SELECT id FROM f_heap ORDER BY id LOOP
            answer := twins(replace(query, 'FROM @f', 'FROM @f WHERE id = ' || k));
            IF answer <> 'ok' THEN
                RETURN 'row ' || k || ': ' || answer;
            END IF;
        END LOOP;
    END IF;
    RETURN answer;
END $$;
-- Those of the expressions, one a line, that aren't "ok". The first kind groups by the expression, the second is an aggregate.
CREATE FUNCTION f_values(expressions text) RETURNS SETOF text LANGUAGE sql AS $$
    SELECT e || ': ' || answer
    FROM string_to_table(trim(E'\n' FROM expressions), E'\n') e, f_check('SELECT id, ' || e || ', count(*) FROM @f GROUP BY 1, 2') answer
    WHERE answer <> 'ok' $$;
CREATE FUNCTION f_sums(expressions text) RETURNS SETOF text LANGUAGE sql AS $$
    SELECT e || ': ' || answer
    FROM string_to_table(trim(E'\n' FROM expressions), E'\n') e, f_check('SELECT id, sum((' || e || ') + 0) FROM @f GROUP BY 1') answer
    WHERE answer <> 'ok' $$;

-- texts
SELECT f_values($$
substring(t from 2)
substring(t from 1 for 2)
substring(t, -1, 4)
substring(t, 0, 2)
substring(t, 3, 2147483647)
substring(t, i2, 3)
substring(t, 1, i4)
substring(t, i4)
substr(t, 3)
substr(t, 2, 0)
substring(c from 1 for 2)
left(t, 2)
left(t, -2)
left(t, i4)
right(t, 3)
right(t, -1)
right(t, i4)
length(t)
char_length(t2)
octet_length(t)
bit_length(t)
length(c)
char_length(c)
octet_length(c)
c::text
c || '|'
trim(t)
ltrim(t)
rtrim(t)
trim(both 'xaä ' from t)
ltrim(t, 'xä')
rtrim(t, t2)
btrim(t, '')
reverse(t)
t || t2
t || '!'
t2 || t || c
lpad(t, 5)
lpad(t, 5, 'xy')
lpad(t, 12, 'äö')
lpad(t, i2, 'ä')
lpad(t, i4, 'x')
rpad(t, 7)
rpad(t, 7, t2)
rpad(t, 3, '')
rpad(t, -3, 'x')
repeat(t, 3)
repeat(t, i2)
repeat(t, i4)
strpos(t, 'a')
position(t2 in t)
position('' in t)
starts_with(t, 'a')
t ^@ t2
replace(t, 'a', 'xyz')
replace(t, t2, '')
replace(t, '', 'x')
lower(t COLLATE "C")
upper(t COLLATE "C")
split_part(t, 'b', 1)
split_part(t, 'a', -1)
split_part(t, t2, i2)
translate(t, 'abä', 'xy')
translate(t, t2, 'ö')
ascii(t)
chr(i4 & 2097151)
chr(-1 - (i4 & 1023))
md5(t)
concat(t, t2)
concat(t, '-', c, NULL)
concat_ws(', ', t, NULL, t2, c)
concat_ws('', t2, t)
overlay(t placing 'xy' from 2 for 1)
overlay(t placing t2 from i2)
i2::text
i4::text || t
i8::text
b::text
t LIKE t2
t NOT LIKE t2 || '%'
t LIKE 'abc\'
$$);
-- conditions over texts
SELECT f_values($$
t LIKE 'a%'
t NOT LIKE '%b'
t LIKE '%#%%' ESCAPE '#'
t LIKE 'a\_b'
t LIKE '_'
c LIKE 'a%'
c LIKE 'a'
t COLLATE "C" ILIKE 'A%'
t COLLATE "C" NOT ILIKE '%B%'
c COLLATE "C" ILIKE 'a%'
t LIKE ANY ('{a%,%b}')
t NOT LIKE ALL ('{a%,%b,NULL}')
c = 'a'
c <> 'ab '
c = t2
c IN ('a', 'ab ', 'ABC')
c COLLATE "C" < 'b'
c COLLATE "C" >= 'ab '
nullif(t, 'a') IS NULL
nullif(c, 'a') IS NULL
t IS DISTINCT FROM t2
t IS NOT DISTINCT FROM 'a'
c IS DISTINCT FROM 'a'
greatest(t COLLATE "C", t2, 'a') = t
least(t COLLATE "C", t2) = t
$$);
-- integers
SELECT f_values($$
abs(i2)
abs(i4)
abs(i8)
@ i4
i2 + i2
i2 - 1::smallint
i2 * i2
i2 / i2
i2 % i2
- i2
mod(i4, 7)
mod(i2, 3::smallint)
mod(i8, i4)
i4 % i2
i8 / i2
i4 & i2
i4 | 12
i8 # i4
i2 & 7::smallint
~ i2
~ i4
~ i8
i4 << 3
i8 << 40
i2 << 2
i2 >> 3
i4 >> 1
i4 << i2
i8 >> i4
i4::smallint
i8::int
i8::smallint
i2::bigint
b::int
i4::boolean
nullif(i4, 0)
nullif(i2, 1)
nullif(i8, i4)
greatest(i4, i2)
greatest(i4, i2, i8, 0)
least(i8, i4)
least(NULL, i4, 5)
coalesce(nullif(i4, 0), i2::int)
i4 IS DISTINCT FROM i2
i4 IS NOT DISTINCT FROM 7
i4 = ANY (ARRAY[i2, 7])
i4 > ANY ('{0,5}')
i4 <= ALL ('{7,100}')
i4 <> ALL ('{7,NULL}')
i2 IN (1, 100000, 7)
i2 NOT IN (1, 100000)
i4 = ANY ('{}')
to_hex(i4)
to_hex(i8)
gcd(i4, i2)
gcd(i8, i4)
lcm(i4, i2)
lcm(i8, i8)
$$);
-- numerics
SELECT f_values($$
abs(n)
abs(w)
sign(n)
ceil(n)
ceiling(w)
floor(n)
floor(w)
round(n)
round(w)
round(n, 1)
round(n, 4)
round(n, -1)
round(w, 3)
round(w, 12)
round(w, -39)
trunc(n)
trunc(w, 4)
trunc(n, -2)
trunc(n, 30)
n % 3
n % 0.07
w % n
mod(w, -7.5)
n::int
n::bigint
n::smallint
w::bigint
n::numeric(6,1)
n::numeric(14,4)
w::numeric(12,2)
w::numeric(38,18)
i4::numeric(8,2)
i8::numeric(19)
i8::numeric
round(n / 3, 2)
round(w / 7, 5)
(n / 3)::int
(n / i4)::numeric(12,4)
ceil(n / 7)
floor(w / n)
trunc(n / 0.03)
nullif(n, 0.5)
greatest(n, 1.00)
least(n, n * 1, -5.00)
greatest(w, n::numeric(30,10))
coalesce(n, 0.00)
div(n, 3)
div(w, 0.07)
div(n, nullif(w, 0))
div(n, i4)
width_bucket(n, -10, 100, 7)
width_bucket(w, 10, -10.5, 20)
width_bucket(n, w, 100, i4)
scale(n)
scale(w * n)
min_scale(n)
min_scale(w)
factorial(i8)
factorial(i2)
gcd(n, 0.5)
gcd(w, n)
lcm(n, 1.250)
lcm(n, w)
$$);
-- numerics of which only the value matters
SELECT f_values($$
n / 3 > 0.17
n / 7 = w / 7
w / n = 1
n / 7 * 3 < w
n / i4 >= 0.5
(n / 3 + w / 3) % 2 < 1
1 / n < 0.5
n / 3 BETWEEN 0 AND 50
- (n / 3) < abs(w / 3)
n / 2 IN (0.25, 0.75, 16.665)
n IN (0.5, 1.005, 33.33)
n = ANY (ARRAY[w, 0.5])
(n / nullif(i4, 0)) IS NULL
CASE WHEN i4 > 0 THEN n / 3 ELSE n END > 1
coalesce(n / 2, 0) = 0.25
nullif(n / 2, 0.25) IS NULL
greatest(n / 3, w) > 1
n / 3 IS DISTINCT FROM w
(n / 3)::float8 > 0.1
n = 1.500
n < 0.005
w > n
w > 99999999999999999999999999999999999999
w < 0.00000000000000000000000000000000000001
sqrt(abs(n)) > 1.4
sqrt(n) < 2
round(sqrt(abs(n)), 5)
trunc(sqrt(abs(w)), 12)
n ^ 2 > 1.5
round(power(n, 3), 2)
trunc(power(w, 2), 8)
(n ^ 2)::numeric(20,2)
pow(n, 0.0) = 1
trim_scale(n) = 0.5
round(trim_scale(w), 3)
w ^ 1 = w
$$);
-- sums of numerics that differ in scale
SELECT f_check('SELECT sum(sqrt(abs(n))), avg(sqrt(abs(n))), sum(n ^ 2), avg(power(n, 3)), sum(power(n, 0)) FROM @f');
SELECT f_check('SELECT i4 > 0, sum(sqrt(abs(n))), avg(n ^ 2) FROM @f GROUP BY 1');
SELECT f_check('SELECT id, sum(trim_scale(n)), avg(trim_scale(w)) FROM @f GROUP BY 1');
-- floats
SELECT f_sums($$
abs(f8)
abs(f4)::float8
round(f8)
ceil(f8)
ceiling(f4)
floor(f8)
trunc(f8)
sign(f8)
sqrt(f8)
|/ abs(f8)
f8 / 3
f8 / f4
1 / f8
(f4 + f4)::float8
(f4 - 1::real)::float8
(f4 * 2::real)::float8
(f4 / 3::real)::float8
(- f4)::float8
f8::real::float8
i4::real::float8
i8::float8
i8::real::float8
n::float8
w::float8
n::real::float8
w::real::float8
greatest(f8, 0)
least(f8, f4, 1)
nullif(f8, 0.5)
power(f8, 2)
power(f8, f4)
f8 ^ 0.5
2 ^ f8
exp(f8)
ln(f8)
log(f8)
$$);
SELECT f_values($$
f8::int
f8::bigint
f8::smallint
f4::int
f4::bigint
f8 IS DISTINCT FROM 'NaN'
f8 IS NOT DISTINCT FROM f4
f8 = ANY ('{NaN,0.5,-0}')
greatest(f8, f4) = f8
width_bucket(f8, 0, 10, 5)
width_bucket(f8, 1e300, -1e300, 100)
width_bucket(f8, f4, 10, i4)
f8 IN ('NaN', 0.5, 'Infinity')
$$);
-- dates and times
SELECT f_values($$
extract(millennium from d)
extract(century from d)
extract(decade from d)
extract(year from d)
extract(isoyear from d)
extract(quarter from d)
extract(month from d)
extract(week from d)
extract(day from d)
extract(dow from d)
extract(isodow from d)
extract(doy from d)
extract(julian from d)
extract(epoch from d)
extract(millennium from ts)
extract(century from ts)
extract(decade from ts)
extract(year from ts)
extract(isoyear from ts)
extract(quarter from ts)
extract(month from ts)
extract(week from ts)
extract(day from ts)
extract(dow from ts)
extract(isodow from ts)
extract(doy from ts)
extract(hour from ts)
extract(minute from ts)
extract(second from ts)
extract(milliseconds from ts)
extract(microseconds from ts)
extract(epoch from ts)
extract(hour from ti)
extract(minute from ti)
extract(second from ti)
extract(milliseconds from ti)
extract(microseconds from ti)
extract(epoch from ti)
extract('YEARS' from d)
date_trunc('millennium', ts)
date_trunc('century', ts)
date_trunc('decade', ts)
date_trunc('year', ts)
date_trunc('quarter', ts)
date_trunc('month', ts)
date_trunc('week', ts)
date_trunc('day', ts)
date_trunc('hour', ts)
date_trunc('minute', ts)
date_trunc('second', ts)
date_trunc('milliseconds', ts)
date_trunc('microseconds', ts)
d + 1
d - 30
7 + d
d + i4
d - i4
d - date '2000-01-01'
d - ts::date
d + interval '1 month'
d - interval '1 year 2 days'
interval '1 day' + d
ts + interval '1 month -1 day 03:04:05.678'
ts - interval '13 months'
ts + interval '12 months'
ts + interval '-1 microsecond'
ts + interval '300000 years'
ts - interval '10 years'
ts::date
d::timestamp
make_date(2024, 2, i2)
make_date(i4, 2, 29)
make_date(i2, 1, 1)
make_date(-44, 3, i4)
greatest(d, '2000-01-01')
least(ts, '2000-01-01')
nullif(d, '2000-02-29')
d IS DISTINCT FROM '1970-01-01'
d = ANY ('{1970-01-01,2000-02-29}')
d < ANY (ARRAY[ts::date, '1970-01-01'])
ts > ALL ('{1970-01-01,2000-02-29}')
d = ts
d >= ts
ts::time
isfinite(d)
isfinite(ts)
date_bin('15 minutes', ts, '2001-01-01')
extract(epoch from ts - '2001-01-01')
ts - d > interval '1 hour'
$$);
SELECT f_sums($$
date_part('year', ts)
date_part('week', d)
date_part('second', ts)
date_part('milliseconds', ts)
date_part('microseconds', ts)
date_part('epoch', ts)
date_part('hour', ti)
date_part('second', ti)
date_part('epoch', ti)
$$);

-- numeric parameters: of the statement, and results of subqueries
SELECT f_check('SELECT count(*) FROM @f WHERE n > (SELECT avg(n) FROM @f)');
SELECT f_check('SELECT count(*) FROM @f WHERE n < 0.2 * (SELECT avg(n) FROM @f)');
SELECT f_check('SELECT count(*) FROM @f WHERE n / (SELECT sum(n) FROM @f WHERE id = 7) > 1');
SELECT f_check('SELECT count(*) FROM @f WHERE w - (SELECT avg(w) FROM @f WHERE id < 4) > n');
SELECT f_check('SELECT count(*) FROM @f WHERE n > (SELECT avg(n) FROM @f WHERE id = 6)');
SELECT f_check('SELECT sum(CASE WHEN n > (SELECT avg(n) FROM @f) THEN n ELSE 0.00 END) FROM @f');
SELECT twins('SELECT v.x, (SELECT count(*) FROM @f WHERE n < v.x) FROM (VALUES (0.5), (0.505), (NULL), (''NaN''), (1e40), (1e-40)) v(x)');
SELECT twins('SELECT v.x, (SELECT count(*) FROM @f WHERE c = v.x) FROM (VALUES (''a''::char(3)), (''ab''), (''x'')) v(x)');
PREPARE q_heap(numeric, char) AS SELECT count(*), sum(n) FROM f_heap WHERE n < $1 OR c = $2 OR w / 3 = $1;
PREPARE q_lake(numeric, char) AS SELECT count(*), sum(n) FROM f_lake WHERE n < $1 OR c = $2 OR w / 3 = $1;
PREPARE r_heap(numeric) AS SELECT id FROM f_heap WHERE n < $1;
PREPARE r_lake(numeric) AS SELECT id FROM f_lake WHERE n < $1;
SET plan_cache_mode = force_generic_plan;
SELECT twins('EXECUTE @q(1.50, ''x'')');
SELECT twins('EXECUTE @q(0.0100000000, NULL)');
SELECT twins('EXECUTE @q(NULL, ''ab '')');
SELECT twins('EXECUTE @q(''NaN'', '''')');
SELECT twins('EXECUTE @q(''-Infinity'', ''c'')');
SELECT twins('EXECUTE @q(123456789012345678901234567890123456789, ''a'')');
SELECT twins('EXECUTE @r(0.505)');
SELECT twins('EXECUTE @r(''Infinity'')');
RESET plan_cache_mode;
DEALLOCATE ALL;

-- values that aren't finite stay in Postgres
INSERT INTO f_heap (id, d, ts) VALUES (20, 'infinity', '-infinity');
INSERT INTO f_lake (id, d, ts) VALUES (20, 'infinity', '-infinity');
SELECT twins('SELECT id, extract(year from d), extract(day from d), count(*) FROM @f GROUP BY 1, 2, 3');
SELECT twins('SELECT id, date_trunc(''month'', ts), ts + interval ''1 day'', d + 1, count(*) FROM @f WHERE id IN (7, 20) GROUP BY 1, 2, 3, 4');
SELECT twins('SELECT id, d - date ''2000-01-01'', count(*) FROM @f GROUP BY 1, 2');
DROP FUNCTION f_values, f_sums, f_check;
DROP TABLE f_heap, f_lake;
