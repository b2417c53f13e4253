-- Purpose: COPY of a value that Iceberg can't hold is an error like any other, below and past lake.bulk_rows.
SET lake.unstorable_values = error;
CREATE TABLE r_lake (id int, d date, n numeric(10,2)) USING iceberg;
COPY r_lake FROM stdin;
1	2024-01-01	1
2	infinity	2
\.
COPY r_lake (n) FROM stdin;
NaN
\.
SET lake.bulk_rows = 1;
COPY r_lake FROM stdin;
1	2024-01-01	1
2	2024-01-01	2
3	infinity	3
\.
SELECT count(*) FROM r_lake;
COPY r_lake FROM stdin;
1	2024-01-01	1
2	2024-01-02	2
\.
SELECT * FROM r_lake ORDER BY id;
DROP TABLE r_lake;
