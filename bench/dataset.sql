-- The benchmark's database: 2.2 GiB, four fifths of it one table, made by the server alone and the same each time.
--
--     psql -X -v ON_ERROR_STOP=1 -f dataset.sql -d EMPTY_DATABASE [-v events=5600000]
--
-- The content is varied as an application's is: names and words from lists, the first ones far more often than the last,
-- numbers and times that grow, tokens that never repeat. `pg_dump -Fc -Z6` makes a quarter of its text.
-- Nothing here is random: a row is a function of its number.

\set ON_ERROR_STOP on
\set QUIET on
\if :{?events}
\else
\set events 5600000
\endif
SET client_min_messages = warning;
SET timezone = 'UTC';
SET maintenance_work_mem = '512MB';
SET max_parallel_maintenance_workers = 2;
SET jit = off;

-- u() is a number in [0, 1) made of a hash; skewed() picks an index, low ones more often.
CREATE FUNCTION pg_temp.u(i bigint, salt bigint) RETURNS float8 LANGUAGE sql IMMUTABLE AS 'SELECT (hashint8extended($1, $2) & 16777215) / 16777216.0::float8';
CREATE FUNCTION pg_temp.skewed(h bigint, n int) RETURNS int LANGUAGE sql IMMUTABLE
    AS 'SELECT 1 + ((h & 65535) * (h & 65535) * n >> 32)::int';

BEGIN;
CREATE TABLE events (
    id         bigint NOT NULL,
    event_key  uuid NOT NULL,
    created_at timestamptz NOT NULL,
    user_id    integer NOT NULL,
    amount     numeric(12, 2),
    kind       text NOT NULL,
    payload    jsonb NOT NULL
);
INSERT INTO events
SELECT i,
       md5(i::text)::uuid,
       to_timestamp(1672531200 + i * 17 + (a & 8191) / 1000.0),
       pg_temp.skewed(a >> 4, 200000),
       CASE WHEN a & 3 <> 0 THEN ((b >> 20) & 262143)::numeric / 100 END,
       (ARRAY['page.viewed', 'member.updated', 'dues.received', 'login.succeeded', 'document.opened', 'search.performed', 'login.failed', 'email.sent', 'session.refreshed',
              'dues.reminded', 'member.created', 'export.started', 'grievance.filed', 'dispatch.offered', 'dispatch.accepted', 'certificate.issued', 'user.locked', 'role.changed'])[pg_temp.skewed(b, 18)],
       ('{"path": "/' || (ARRAY['members', 'dues', 'documents', 'dispatch', 'training', 'reports', 'grievances', 'admin/users'])[pg_temp.skewed(a >> 8, 8)] || '/' || pg_temp.skewed(a >> 24, 60000)
        || '", "method": "' || (ARRAY['GET', 'POST', 'PATCH', 'DELETE'])[pg_temp.skewed(b >> 12, 4)]
        || '", "status": ' || (ARRAY[200, 200, 201, 204, 302, 400, 403, 404, 409, 422, 500])[pg_temp.skewed(a >> 30, 11)]
        || ', "duration_ms": ' || pg_temp.skewed(b >> 7, 4000) || ', "ip": "10.' || ((b >> 40) & 15) || '.' || ((a >> 40) & 255) || '.' || ((a >> 17) & 255)
        || '", "agent": "' || (ARRAY['Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/126.0.0.0', 'Mozilla/5.0 (iPhone; CPU iPhone OS 17_5) Safari/604.1', 'Mozilla/5.0 (X11; Linux x86_64) Firefox/127.0',
                                     'Mozilla/5.0 (Macintosh; Intel Mac OS X 14_5) Safari/605.1.15', 'LocalOne-Android/3.2.1', 'python-httpx/0.27.0'])[pg_temp.skewed(b >> 25, 6)]
        || CASE WHEN a & 48 = 0 THEN '", "request_id": "' || to_hex(a # b) ELSE '' END
        || CASE (b >> 3) & 7
               WHEN 0 THEN '", "changes": {"status": ["active", "suspended"], "city": "' || (ARRAY['Springfield', 'Riverton', 'Fairview', 'Milford', 'Clayton', 'Greenville', 'Bristol'])[pg_temp.skewed(a >> 33, 7)] || '", "rate": ' || ((a >> 21) & 127) || '}'
               WHEN 1 THEN '", "search": {"text": "' || (ARRAY['smith', 'journeyman', 'local 58', 'card expired', 'unpaid', 'welding'])[pg_temp.skewed(a >> 35, 6)] || '", "hits": ' || ((b >> 33) & 511) || ', "page": ' || ((a >> 50) & 7) || '}'
               WHEN 2 THEN '", "tags": ["portal", "q' || ((a >> 19) & 3) || '", "' || (ARRAY['web', 'kiosk', 'phone'])[pg_temp.skewed(a >> 11, 3)] || '"], "retry": false'
               ELSE '", "locale": "' || (ARRAY['en-US', 'es-US', 'pl-PL'])[pg_temp.skewed(b >> 30, 3)] || '"' END || '}')::jsonb
FROM (SELECT i, hashint8extended(i, 1) AS a, hashint8extended(i, 2) AS b FROM generate_series(1, :events) i OFFSET 0) g;
COMMIT;

BEGIN;
-- 4,000 sentences, of which the texts below are made.
CREATE TEMPORARY TABLE sentence AS
SELECT s, (SELECT initcap(w[1 + (pg_temp.u(s * 100, 3) * 60)::int]) || ' ' || string_agg(w[pg_temp.skewed(hashint8extended(s * 100 + k, 4), cardinality(w))], ' ' ORDER BY k)
                  || CASE WHEN s % 5 = 0 THEN ' ' || s * 37 ELSE '' END || CASE s % 9 WHEN 0 THEN E'.\n\n' WHEN 1 THEN '? ' ELSE '. ' END
           FROM generate_series(1, 5 + s % 17) k) AS text
FROM generate_series(0, 3999) s,
     (SELECT string_to_array('the of to and a in is for that on with as be by this at from are it or was an not which have has will any all may shall their been other member union local work employer agreement contract dues hours rate day week pay wage benefit fund health pension training apprentice journeyman steward officer committee meeting vote board report request notice party grievance step arbitration decision safety jobsite overtime holiday leave sick family medical insurance premium contribution trust account balance month year quarter letter copy file form sign date number name address phone email office hall dispatch list referral book card travel transfer initiation reinstatement withdrawal suspended active retired status change update record system received mailed paid late penalty waived approved denied pending closed open review appeal hearing witness statement evidence document attached page section article paragraph clause term effective expire renew extend amend replace void null electrician plumber carpenter welder pipefitter foreman crew shift site tower bridge school hospital plant refinery harbor station tunnel', ' ') AS w OFFSET 0) list;
ALTER TABLE sentence ADD PRIMARY KEY (s);
ANALYZE sentence;

CREATE TABLE users (id integer NOT NULL, email text NOT NULL, full_name text NOT NULL, password_hash text NOT NULL, city text, postal_code char(5), birth_date date, is_active boolean NOT NULL, failed_login_attempts integer NOT NULL, locked_until timestamptz, created_at timestamptz NOT NULL);
INSERT INTO users
SELECT i, lower(f || '.' || l) || i || '@mail.example', f || ' ' || l, '$2b$12$' || translate(encode(sha256(('pw' || i)::bytea), 'base64'), '+=' || chr(10), '.'),
       (ARRAY['Springfield', 'Riverton', 'Fairview', 'Milford', 'Clayton', 'Greenville', 'Bristol', 'Salem'])[pg_temp.skewed(a >> 9, 8)], lpad((10000 + (a >> 20 & 4095))::text, 5, '0'),
       date '1950-01-01' + (a >> 30 & 16383)::int, a & 31 <> 0, CASE WHEN a & 15 = 0 THEN (a >> 5 & 3)::int ELSE 0 END, CASE WHEN a & 255 = 7 THEN to_timestamp(1700000000 + (a >> 12 & 33554431)) END,
       to_timestamp(1600000000 + i * 500)
FROM (SELECT i, a, (ARRAY['James', 'Maria', 'Robert', 'Linda', 'Michael', 'Patricia', 'David', 'Jennifer', 'William', 'Elena', 'Richard', 'Susan', 'Joseph', 'Angela', 'Carlos', 'Karen', 'Daniel', 'Zoë', 'Tyrone', 'Amara'])[pg_temp.skewed(a, 20)] AS f,
             (ARRAY['Smith', 'Johnson', 'Garcia', 'Miller', 'Davis', 'Martinez', 'Lopez', 'Wilson', 'Nguyen', 'Kowalski', 'Okafor', 'Patel', 'Haddad', 'Fitzgerald', 'Schäfer', 'Novak'])[pg_temp.skewed(a >> 16, 16)] AS l
      FROM (SELECT i, hashint8extended(i, 5) AS a FROM generate_series(1, 200000) i OFFSET 0) h OFFSET 0) g;

CREATE TABLE payments (id bigint NOT NULL, user_id integer NOT NULL, period date NOT NULL, amount numeric(10, 2) NOT NULL, method text NOT NULL, reference text, received_at timestamptz NOT NULL);
INSERT INTO payments
SELECT i, 1 + i % 200000, date '2023-01-01' + ((i / 200000) * 91)::int, 40 + (a >> 8 & 127) * 1.25, (ARRAY['payroll', 'ach', 'card', 'check', 'cash'])[pg_temp.skewed(a >> 20, 5)],
       CASE WHEN a & 7 <> 0 THEN 'TX-' || upper(to_hex(a >> 24 & 1099511627775)) END, to_timestamp(1672531200 + i * 60 + (a >> 40 & 65535))
FROM (SELECT i, hashint8extended(i, 6) AS a FROM generate_series(1, 1000000) i OFFSET 0) g;

CREATE TABLE readings (at timestamptz NOT NULL, sensor smallint NOT NULL, value double precision NOT NULL, low real, high real, flags integer NOT NULL);
INSERT INTO readings
SELECT to_timestamp(1672531200 + i * 30), i % 40, 20 + 5 * sin(i / 500.0) + pg_temp.u(i, 7), round((15 + pg_temp.u(i, 8))::numeric, 2), CASE WHEN i % 10 <> 0 THEN round((25 + pg_temp.u(i, 9))::numeric, 2) END, CASE WHEN i % 97 = 0 THEN 3 ELSE 0 END
FROM generate_series(1, 900000) i;

CREATE TABLE refresh_tokens (id uuid NOT NULL, user_id integer NOT NULL, token_hash char(64) NOT NULL, issued_at timestamptz NOT NULL, expires_at timestamptz NOT NULL, revoked_at timestamptz);
INSERT INTO refresh_tokens
SELECT md5('t' || i)::uuid, pg_temp.skewed(a, 200000), encode(sha256(('s' || i)::bytea), 'hex'), to_timestamp(1690000000 + i * 200), to_timestamp(1690000000 + i * 200 + 2592000),
       CASE WHEN a & 96 = 0 THEN to_timestamp(1690000000 + i * 200 + (a >> 20 & 1048575)) END
FROM (SELECT i, hashint8extended(i, 10) AS a FROM generate_series(1, 200000) i OFFSET 0) g;

CREATE TABLE messages (id integer NOT NULL, user_id integer NOT NULL, sent_at timestamptz NOT NULL, subject text NOT NULL, body text NOT NULL);
INSERT INTO messages
SELECT i, pg_temp.skewed(hashint8extended(i, 11), 200000), to_timestamp(1672531200 + i * 300), left(min(text) FILTER (WHERE k = 1), 60), string_agg(text, '' ORDER BY k)
FROM (SELECT i, k, (hashint8extended(i * 10 + k, 12) & 4095) % 4000 AS s FROM generate_series(1, 160000) i, generate_series(1, 5) k OFFSET 0) g JOIN sentence USING (s)
GROUP BY i ORDER BY i;

-- Each text is 10 to 50 KB, and stored out of line.
CREATE TABLE documents (id integer NOT NULL, owner_id integer NOT NULL, title text NOT NULL, body text NOT NULL, scan bytea);
INSERT INTO documents
SELECT i, pg_temp.skewed(hashint8extended(i, 13), 200000), 'Document ' || i || ': ' || left(min(text) FILTER (WHERE k = 1), 40), string_agg(text, '' ORDER BY k),
       -- a few have an image, which nothing compresses
       CASE WHEN i % 20 = 0 THEN (SELECT string_agg(sha256((i || '/' || n)::bytea), '' ORDER BY n) FROM generate_series(1, 1500) n) END
FROM (SELECT i, k, (hashint8extended(i * 1000 + k, 14) & 4095) % 4000 AS s FROM generate_series(1, 5000) i, generate_series(1, 150 + i % 500) k OFFSET 0) g JOIN sentence USING (s)
GROUP BY i ORDER BY i;

CREATE TABLE settings (name text NOT NULL, value jsonb NOT NULL);
INSERT INTO settings SELECT 'setting.' || i, jsonb_build_object('value', i, 'editable', i % 2 = 0) FROM generate_series(1, 300) i;
COMMIT;

ALTER TABLE events ADD PRIMARY KEY (id);
ALTER TABLE users ADD PRIMARY KEY (id);
ALTER TABLE payments ADD PRIMARY KEY (id);
ALTER TABLE refresh_tokens ADD PRIMARY KEY (id);
ALTER TABLE messages ADD PRIMARY KEY (id);
ALTER TABLE documents ADD PRIMARY KEY (id);
ALTER TABLE settings ADD PRIMARY KEY (name);
CREATE INDEX events_created_at ON events USING brin (created_at);
CREATE INDEX payments_user_id ON payments (user_id);

DROP FUNCTION pg_temp.u(bigint, bigint);
DROP FUNCTION pg_temp.skewed(bigint, int);
DROP TABLE sentence;
VACUUM (ANALYZE);
CHECKPOINT;
