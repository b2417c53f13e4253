//! Lists of the grammar's functions, operators, aggregates and window functions.
//!
//! A line has, separated by ` ; `: the result's type, the form, the parameters' types, SQLSTATEs that a call can end
//! with, and notes. A parameter with a `'` takes only literals, none of them zero. What exists for many types is
//! added by `catalog`.
//!
//! Notes of functions:
//! * `wild`: would fail too often in a query that isn't meant to
//! * `shows`: tells apart what is equal (`-0` and `0`, `1.0` and `1.00`): not for what stands for a group
//! * `fixed`: equal results look the same; `same`: they do if those of the arguments do
//!
//! Of aggregates and window functions:
//! * `exact`: adds floats up: only of tame values, whose sum doesn't depend on the order
//! * `near`: of floats, and does depend on it
//! * `ordered`: gets an ORDER BY that tells all rows apart; `enclosed`: within another call, where no FILTER can follow
//! * `peers`: the same for rows that ORDER BY doesn't tell apart; `total`: isn't; `frame`: depends on the frame, that of `total` on
//!   the order within it, too

pub const FUNCTIONS: &str = "
bool ; $1 AND $2 ; bool bool
bool ; $1 OR $2 ; bool bool
bool ; NOT $1 ; bool
bool ; $1 IS TRUE ; bool
bool ; $1 IS NOT TRUE ; bool
bool ; $1 IS FALSE ; bool
bool ; $1 IS NOT FALSE ; bool
bool ; $1 IS UNKNOWN ; bool
bool ; $1 AND $2 AND $3 ; bool bool bool
bool ; $1 OR $2 OR $3 ; bool bool bool
bool ; $1 <> '0'::int4 AND $2 / $1 > $3 ; int4 int4 int4' ; 22012 22003
bool ; $1 = '0'::int4 OR $2 % $1 = $3 ; int4 int4 int4'
bool ; $1::bool ; int4
int4 ; $1::int4 ; bool
text ; $1::text ; bool
int2 ; - $1 ; int2 ; 22003
int4 ; - $1 ; int4 ; 22003
int8 ; - $1 ; int8 ; 22003
int2 ; abs($1) ; int2 ; 22003
int4 ; abs($1) ; int4 ; 22003
int8 ; abs($1) ; int8 ; 22003
int4 ; $1 & $2 ; int4 int4
int4 ; $1 | $2 ; int4 int4
int4 ; $1 # $2 ; int4 int4
int4 ; ~ $1 ; int4
int4 ; $1 << $2 ; int4 int4'
int4 ; $1 >> $2 ; int4 int4'
int8 ; $1 & $2 ; int8 int8
int8 ; $1 | $2 ; int8 int8
int4 ; mod($1, $2) ; int4 int4'
int4 ; gcd($1, $2) ; int4 int4 ; 22003
int4 ; lcm($1, $2) ; int4 int4 ; 22003
int8 ; gcd($1, $2) ; int8 int8 ; 22003
int8 ; lcm($1, $2) ; int8 int8 ; 22003
int4 ; CASE WHEN $2 <> '0'::int4 THEN $1 / $2 ELSE '-1'::int4 END ; int4 int4
int4 ; $1 / nullif($2, '0'::int4) ; int4 int4 ; 22003
int2 ; $1::int2 ; int4 ; 22003
int2 ; $1::int2 ; int8 ; 22003
int4 ; $1::int4 ; int2
int4 ; $1::int4 ; int8 ; 22003
int8 ; $1::int8 ; int2
int8 ; $1::int8 ; int4
float4 ; $1::float4 ; int4
float8 ; $1::float8 ; int2
float8 ; $1::float8 ; int4
float8 ; $1::float8 ; int8
numeric ; $1::numeric ; int2 ; ; fixed
numeric ; $1::numeric ; int4 ; ; fixed
numeric ; $1::numeric ; int8 ; ; fixed
numeric ; $1::numeric(12,2) ; int4 ; 22003 ; fixed
text ; $1::text ; int2
text ; $1::text ; int4
text ; $1::text ; int8
float4 ; - $1 ; float4
float8 ; - $1 ; float8
float4 ; abs($1) ; float4
float8 ; abs($1) ; float8
float8 ; round($1) ; float8
float8 ; trunc($1) ; float8
float8 ; ceil($1) ; float8
float8 ; floor($1) ; float8
float8 ; sign($1) ; float8
float8 ; sqrt(abs($1)) ; float8
float8 ; sqrt($1) ; float8 ; 2201F ; wild
float8 ; exp($1) ; float8 ; 22003 ; wild
float8 ; ln($1) ; float8 ; 2201E ; wild
float8 ; log($1) ; float8 ; 2201E ; wild
float8 ; ln(abs($1) + '1'::float8) ; float8
float8 ; cbrt($1) ; float8
float8 ; power($1, '2'::float8) ; float8 ; 22003
float8 ; power($1, $2) ; float8 float8 ; 2201F 22003 ; wild
float8 ; $1::float8 ; float4
float4 ; $1::float4 ; float8 ; 22003
int4 ; CASE WHEN abs($1) < '1000'::float8 THEN $1::int4 END ; float8
int8 ; CASE WHEN abs($1) < '1000'::float8 THEN $1::int8 END ; float8
int4 ; $1::int4 ; float8 ; 22003 ; wild
int2 ; $1::int2 ; float4 ; 22003 ; wild
numeric ; $1::numeric ; float8 ; ; shows
numeric ; $1::numeric(12,2) ; float8 ; 22003 ; wild
text ; $1::text ; float4 ; ; shows
text ; $1::text ; float8 ; ; shows
numeric ; - $1 ; numeric ; ; same
numeric ; abs($1) ; numeric ; ; same
numeric ; round($1) ; numeric ; ; fixed
numeric ; round($1, 1) ; numeric ; ; fixed
numeric ; round($1, -2) ; numeric ; ; fixed
numeric ; trunc($1) ; numeric ; ; fixed
numeric ; trunc($1, 1) ; numeric ; ; fixed
numeric ; ceil($1) ; numeric ; ; fixed
numeric ; floor($1) ; numeric ; ; fixed
numeric ; sign($1) ; numeric ; ; fixed
numeric ; div($1, $2) ; numeric numeric' ; ; fixed
numeric ; mod($1, $2) ; numeric numeric' ; ; same
numeric ; sqrt(abs($1)) ; numeric
numeric ; round(sqrt(abs($1)), 5) ; numeric ; ; fixed
bool ; sqrt(abs($1)) > $2 ; numeric numeric
numeric ; trunc($1 ^ 2, 4) ; numeric ; ; fixed
numeric ; round(power($1, 3), 2) ; numeric ; ; fixed
numeric ; gcd($1, $2) ; numeric numeric ; ; same
int4 ; width_bucket($1, '-100', '100.5', 7) ; numeric ; 2201G
int4 ; width_bucket($1, $2, $3, 10) ; numeric numeric numeric ; 2201G ; wild
int4 ; width_bucket($1, '10', '-10', 6) ; float8 ; 2201G
int4 ; width_bucket($1, $2, $3, 10) ; float8 float8 float8 ; 2201G ; wild
numeric ; $1::numeric(12,2) ; numeric ; 22003 ; fixed
numeric ; $1::numeric(38,10) ; numeric ; 22003 ; fixed
numeric ; $1::numeric(20,4) ; numeric ; 22003 ; fixed
int4 ; $1::int4 ; numeric ; 22003 0A000
int8 ; $1::int8 ; numeric ; 22003 0A000
float4 ; $1::float4 ; numeric ; 22003
float8 ; $1::float8 ; numeric ; 22003
text ; $1::text ; numeric ; ; shows
int4 ; scale($1) ; numeric ; ; shows
text ; to_char($1, 'FM9999990.00') ; numeric ; ; shows
text ; to_char($1, 'FM999999') ; int4
text ; to_hex($1) ; int4
text ; to_hex($1) ; int8
text ; chr($1) ; int4 ; 54000 22023 ; wild
text ; chr(abs($1 % '200') + '1'::int4) ; int4
int4 ; length($1) ; text
int4 ; length($1) ; textc
int4 ; length($1) ; varchar
int4 ; length($1) ; char
int4 ; octet_length($1) ; text
int4 ; octet_length($1) ; char
int4 ; bit_length($1) ; text
int4 ; char_length($1) ; varchar
int4 ; strpos($1, $2) ; text text
int4 ; position($2 IN $1) ; text text
int4 ; ascii($1) ; text
text ; $1 || $2 ; text text
text ; $1 || $2 ; varchar text
text ; $1 || $2 ; char text
textc ; $1 || $2 ; textc textc
text ; $1 || $2 ; text int4
text ; lower($1) ; text
text ; upper($1) ; text
text ; initcap($1) ; text
textc ; lower($1) ; textc
textc ; upper($1) ; textc
text ; lower($1) ; char
text ; upper($1) ; varchar
text ; reverse($1) ; text
text ; left($1, $2) ; text int4
text ; right($1, $2) ; text int4
textc ; left($1, 2) ; textc
text ; substring($1 FROM 2) ; text
text ; substring($1 FROM 2 FOR 3) ; text
text ; substring($1, $2) ; text int4
text ; substring($1, $2, 2) ; text int4
text ; substring($1, $2, $3) ; text int4 int4 ; 22011 ; wild
text ; substring($1 FROM 1 FOR 2) ; char
text ; substr($1, 2, 2) ; varchar
textc ; substring($1 FROM 1 FOR 1) ; textc
text ; overlay($1 PLACING 'xy' FROM 2 FOR 1) ; text
text ; lpad($1, 6, 'xy') ; text
text ; rpad($1, 3) ; text
text ; btrim($1) ; text
text ; ltrim($1, 'a ') ; text
text ; rtrim($1) ; text
text ; btrim($1) ; char
text ; replace($1, 'a', 'bb') ; text
text ; replace($1, $2, '_') ; text text'
text ; translate($1, 'abä', 'xy') ; text
text ; repeat($1, 2) ; text
text ; split_part($1, 'b', 1) ; text
text ; split_part($1, $2, 2) ; text text
text ; concat($1, $2) ; text text
text ; concat($1, '-', $2) ; int4 text
text ; concat_ws(',', $1, $2) ; text varchar
text ; concat_ws('', $1, $2, $3) ; char text text
text ; concat($1, '-', $2) ; text char
text ; md5($1) ; text
bool ; $1 LIKE $2 ; text text ; 22025 ; wild
bool ; $1 NOT LIKE $2 ; varchar text ; 22025 ; wild
bool ; $1 LIKE '%' || $2 ; text text' ; 22025
bool ; $1 ILIKE $2 ; textc textc ; 22025 ; wild
bool ; $1 LIKE ANY (ARRAY[$2, 'a%']) ; char text' ; 22025
bool ; starts_with($1, $2) ; text text
bool ; $1 ^@ $2 ; text text'
int4 ; $1::int4 ; text ; 22P02 22003 ; wild
numeric ; $1::numeric ; text ; 22P02 22003 ; wild
date ; $1::date ; text ; 22007 22008 ; wild
text ; $1::text ; varchar
text ; $1::text ; char
textc ; $1 COLLATE \"C\" ; text
textc ; $1::text COLLATE \"C\" ; varchar
varchar ; $1::varchar(3) ; text
varchar ; $1::varchar ; text
char ; $1::char(5) ; text
char ; $1::char(5) ; varchar
date ; $1 + $2 ; date int4 ; 22008
date ; $1 - $2 ; date int4 ; 22008
int4 ; $1 - $2 ; date date ; 22008
timestamp ; $1 + $2 ; date interval' ; 22008
timestamp ; $1 - $2 ; date interval' ; 22008
timestamp ; $1 + $2 ; date time ; 22008
timestamp ; $1 + $2 ; timestamp interval' ; 22008
timestamp ; $1 - $2 ; timestamp interval' ; 22008
timestamptz ; $1 + $2 ; timestamptz interval' ; 22008
timestamptz ; $1 - $2 ; timestamptz interval' ; 22008
interval ; $1 - $2 ; timestamp timestamp ; 22008
interval ; $1 - $2 ; timestamptz timestamptz ; 22008
bool ; $1 - $2 > $3 ; timestamp timestamp interval' ; 22008
bool ; $1 - $2 <= $3 ; timestamptz timestamptz interval' ; 22008
bool ; $1 - $2 = $3 - $4 ; timestamp timestamp timestamptz timestamptz ; 22008
numeric ; extract(epoch FROM ($1 - $2)) ; timestamp timestamp ; 22008 ; fixed
numeric ; extract(epoch FROM ($1 - $2)) ; timestamptz timestamptz ; 22008 ; fixed
float8 ; date_part('epoch', $1 - $2) ; timestamptz timestamptz ; 22008
interval ; age($1, $2) ; timestamp timestamp ; 22008
time ; $1 + $2 ; time interval'
time ; $1 - $2 ; time interval'
interval ; $1 - $2 ; time time
interval ; $1 + $2 ; interval interval ; 22008
interval ; $1 * $2 ; interval float8' ; 22008
interval ; $1::interval ; time
interval ; justify_hours($1) ; interval ; 22008
interval ; justify_days($1) ; interval ; 22008
interval ; justify_interval($1) ; interval ; 22008
interval ; - $1 ; interval ; 22008
interval ; $1 - $2 ; interval interval ; 22008
interval ; $1 / $2 ; interval float8' ; 22008 22012
interval ; $2 * $1 ; interval float8' ; 22008
interval ; make_interval(days => $1, secs => $2) ; int2 float8' ; 22008
interval ; age($1, $2) ; timestamptz timestamptz ; 22008
timestamp ; $1 + $2 ; timestamp interval ; 22008
timestamptz ; $1 - $2 ; timestamptz interval ; 22008
numeric ; extract(day FROM $1) ; interval ; ; shows
numeric ; extract(month FROM $1) ; interval ; ; shows
numeric ; extract(second FROM $1) ; interval ; ; shows
float8 ; date_part('hour', $1) ; interval ; ; shows
timestamp ; $1::timestamp ; date ; 22008
timestamptz ; $1::timestamptz ; date ; 22008
date ; $1::date ; timestamp ; 22008
date ; $1::date ; timestamptz ; 22008
timestamptz ; $1::timestamptz ; timestamp ; 22008
timestamp ; $1::timestamp ; timestamptz ; 22008
time ; $1::time ; timestamp
time ; $1::time ; timestamptz
timestamptz ; $1 AT TIME ZONE 'Europe/Berlin' ; timestamp ; 22008
timestamp ; $1 AT TIME ZONE 'Asia/Kolkata' ; timestamptz ; 22008
timestamp ; $1 AT TIME ZONE 'UTC' ; timestamptz ; 22008
timestamptz ; $1 AT TIME ZONE 'Etc/GMT+5' ; timestamp ; 22008
timestamp ; date_bin('15 minutes', $1, '2001-01-01') ; timestamp ; 22008
timestamptz ; date_bin('1 day 1 hour', $1, '2001-01-01 00:00+00') ; timestamptz ; 22008
timestamp ; date_trunc('month', $1) ; timestamp ; 22008
timestamp ; date_trunc('week', $1) ; timestamp ; 22008
timestamp ; date_trunc('hour', $1) ; timestamp ; 22008
timestamp ; date_trunc('year', $1) ; timestamp ; 22008
timestamptz ; date_trunc('day', $1) ; timestamptz ; 22008
timestamptz ; date_trunc('week', $1) ; timestamptz ; 22008
timestamptz ; date_trunc('minute', $1) ; timestamptz ; 22008
timestamptz ; date_trunc('quarter', $1) ; timestamptz ; 22008
timestamptz ; date_trunc('month', $1) ; date ; 22008
numeric ; extract(year FROM $1) ; date ; ; fixed
numeric ; extract(month FROM $1) ; date ; ; fixed
numeric ; extract(day FROM $1) ; date ; ; fixed
numeric ; extract(dow FROM $1) ; date ; ; fixed
numeric ; extract(doy FROM $1) ; date ; ; fixed
numeric ; extract(week FROM $1) ; date ; ; fixed
numeric ; extract(quarter FROM $1) ; date ; ; fixed
numeric ; extract(isoyear FROM $1) ; date ; ; fixed
numeric ; extract(isodow FROM $1) ; date ; ; fixed
numeric ; extract(century FROM $1) ; date ; ; fixed
numeric ; extract(decade FROM $1) ; date ; ; fixed
numeric ; extract(epoch FROM $1) ; date ; ; fixed
numeric ; extract(year FROM $1) ; timestamp ; ; fixed
numeric ; extract(month FROM $1) ; timestamp ; ; fixed
numeric ; extract(day FROM $1) ; timestamp ; ; fixed
numeric ; extract(hour FROM $1) ; timestamp ; ; fixed
numeric ; extract(minute FROM $1) ; timestamp ; ; fixed
numeric ; extract(second FROM $1) ; timestamp ; ; fixed
numeric ; extract(microseconds FROM $1) ; timestamp ; ; fixed
numeric ; extract(week FROM $1) ; timestamp ; ; fixed
numeric ; extract(epoch FROM $1) ; timestamp ; ; fixed
numeric ; extract(hour FROM $1) ; timestamptz ; ; fixed
numeric ; extract(day FROM $1) ; timestamptz ; ; fixed
numeric ; extract(week FROM $1) ; timestamptz ; ; fixed
numeric ; extract(dow FROM $1) ; timestamptz ; ; fixed
numeric ; extract(second FROM $1) ; timestamptz ; ; fixed
numeric ; extract(epoch FROM $1) ; timestamptz ; ; fixed
numeric ; extract(hour FROM $1) ; time ; ; fixed
numeric ; extract(second FROM $1) ; time ; ; fixed
numeric ; extract(epoch FROM $1) ; interval
float8 ; date_part('year', $1) ; timestamp
float8 ; date_part('hour', $1) ; timestamptz
float8 ; date_part('epoch', $1) ; timestamptz
bool ; isfinite($1) ; date
bool ; isfinite($1) ; timestamp
text ; $1::text ; date
text ; $1::text ; time
text ; $1::text ; timestamp
text ; $1::text ; timestamptz
text ; $1::text ; interval ; ; shows
text ; to_char($1, 'YYYY-MM-DD HH24:MI:SS.US') ; timestamp
text ; to_char($1, 'IYYY-IW') ; timestamp
text ; to_char($1, 'HH12:MI AM TZ') ; timestamptz
text ; $1::text ; uuid
int4 ; length($1) ; bytea
int4 ; octet_length($1) ; bytea
bytea ; $1 || $2 ; bytea bytea
bytea ; substring($1 FROM 2 FOR 1) ; bytea
text ; encode($1, 'hex') ; bytea
text ; md5($1) ; bytea
bytea ; sha256($1) ; bytea
";

pub const AGGREGATES: &str = "
int8 ; count(*)
int8 ; sum($d$1) ; int2
int8 ; sum($d$1) ; int4
numeric ; sum($d$1) ; int8 ; ; fixed
numeric ; sum($d$1) ; numeric ; ; same
float4 ; sum($d$1) ; float4 ; ; exact
float8 ; sum($d$1) ; float8 ; ; exact
numeric ; avg($d$1) ; int2
numeric ; avg($d$1) ; int4
numeric ; avg($d$1) ; int8
numeric ; avg($d$1) ; numeric
interval ; sum($1) ; interval ; 22008
interval ; avg($1) ; interval ; 22008
float8 ; avg($d$1) ; float4 ; ; exact
float8 ; avg($d$1) ; float8 ; ; exact
text ; min($1) ; varchar
text ; max($1) ; varchar
bool ; bool_and($1) ; bool
bool ; bool_or($d$1) ; bool
bool ; every($1) ; bool
bool ; bool_and($1$o) ; bool ; ; ordered
int2 ; bit_and($d$1) ; int2
int4 ; bit_and($1) ; int4
int8 ; bit_and($1) ; int8
int2 ; bit_or($1) ; int2
int4 ; bit_or($1) ; int4
int8 ; bit_or($d$1) ; int8
int2 ; bit_xor($1) ; int2
int4 ; bit_xor($d$1) ; int4
int8 ; bit_xor($1) ; int8
int8 ; count($1$o) ; text ; ; ordered
int8 ; sum($1$o) ; int4 ; ; ordered
date ; max($1$o) ; date ; ; ordered
int8 ; regr_count($1, $2) ; float8 int4
int8 ; regr_count($1, $2) ; int8 float4
numeric ; variance($d$1) ; int2
numeric ; variance($1) ; int4
numeric ; var_samp($1) ; int8
numeric ; var_samp($d$1) ; numeric
numeric ; var_pop($1) ; int4
numeric ; var_pop($d$1) ; int8
numeric ; var_pop($1) ; numeric
numeric ; stddev($1) ; int4
numeric ; stddev($d$1) ; numeric
numeric ; stddev_samp($d$1) ; int2
numeric ; stddev_samp($1) ; int8
numeric ; stddev_pop($1) ; int2
numeric ; stddev_pop($1) ; numeric
float8 ; stddev($1) ; float8 ; ; exact near
float8 ; var_pop($1) ; float8 ; ; exact near
float8 ; stddev_pop($1) ; float4 ; ; exact near
float8 ; regr_avgy($1, $2) ; float8 float8 ; ; exact
float8 ; regr_sxx($1, $2) ; float8 float8 ; ; exact near
float8 ; corr($1, $2) ; float8 float8 ; ; exact near
text ; string_agg($1, ','$o) ; text ; ; ordered
text ; string_agg($1, ', '$o) ; varchar ; ; ordered
text ; string_agg($1, NULL$o) ; text ; ; ordered
text ; array_to_string(array_agg($1$o), '|', 'null') ; int4 ; ; ordered enclosed
text ; array_to_string(array_agg($1$o), '|', 'null') ; date ; ; ordered enclosed
text ; array_to_string(array_agg($1$o), '|', 'null') ; text ; ; ordered enclosed
text ; array_to_string(array_agg(DISTINCT $1), '|', 'null') ; int4 ; ; enclosed
text ; array_to_string(array_agg(DISTINCT $1), '|', 'null') ; date ; ; enclosed
text ; array_to_string(array_agg(DISTINCT $1), '|', 'null') ; textc ; ; enclosed
int4 ; percentile_disc(0.5) WITHIN GROUP (ORDER BY $1) ; int4
int8 ; percentile_disc(0) WITHIN GROUP (ORDER BY $1 DESC) ; int8
date ; percentile_disc(0.25) WITHIN GROUP (ORDER BY $1) ; date
textc ; percentile_disc(0.6) WITHIN GROUP (ORDER BY $1) ; textc
text ; percentile_disc(0.6) WITHIN GROUP (ORDER BY $1) ; text
float8 ; percentile_disc(0.9) WITHIN GROUP (ORDER BY $1 DESC) ; float8
numeric ; percentile_disc(1) WITHIN GROUP (ORDER BY $1) ; numeric ; ; same
uuid ; percentile_disc(0.3) WITHIN GROUP (ORDER BY $1) ; uuid
float8 ; percentile_cont(0.5) WITHIN GROUP (ORDER BY $1) ; float8
float8 ; percentile_cont(0.3) WITHIN GROUP (ORDER BY $1 DESC) ; int4
float8 ; percentile_cont(0.99) WITHIN GROUP (ORDER BY $1) ; float4
int4 ; mode() WITHIN GROUP (ORDER BY $1) ; int4
bool ; mode() WITHIN GROUP (ORDER BY $1 DESC) ; bool
textc ; mode() WITHIN GROUP (ORDER BY $1) ; textc
timestamp ; mode() WITHIN GROUP (ORDER BY $1 DESC) ; timestamp
float8 ; mode() WITHIN GROUP (ORDER BY $1) ; float8
";

pub const WINDOW_FUNCTIONS: &str = "
int8 ; row_number() ; ; ; total
int8 ; rank() ; ; ; peers
int8 ; dense_rank() ; ; ; peers
float8 ; percent_rank() ; ; ; peers
float8 ; cume_dist() ; ; ; peers
int4 ; ntile(3) ; ; ; total
int8 ; count(*) ; ; ; frame
int8 ; count($1) ; int4 ; ; frame
int8 ; count($1) ; text ; ; frame
int8 ; sum($1) ; int4 ; ; frame
numeric ; sum($1) ; int8 ; ; frame fixed
numeric ; sum($1) ; numeric ; ; frame same
float8 ; sum($1) ; float8 ; ; frame exact
float4 ; sum($1) ; float4 ; ; frame exact
float8 ; avg($1) ; float8 ; ; frame exact
float8 ; var_samp($1) ; float8 ; ; frame total exact
float8 ; stddev_pop($1) ; float4 ; ; frame total exact
float8 ; corr($1, $2) ; float8 float8 ; ; frame total exact
float8 ; regr_slope($1, $2) ; float8 float8 ; ; frame total exact
numeric ; avg($1) ; int4 ; ; frame
numeric ; avg($1) ; numeric ; ; frame
int4 ; min($1) ; int4 ; ; frame
int4 ; max($1) ; int4 ; ; frame
text ; max($1) ; text ; ; frame
textc ; min($1) ; textc ; ; frame
date ; min($1) ; date ; ; frame
float8 ; max($1) ; float8 ; ; frame
bool ; bool_or($1) ; bool ; ; frame
";
