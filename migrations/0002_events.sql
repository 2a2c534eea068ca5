-- The append-only log: one table, one dense position, one function through which every event comes.
--
-- Why a function: its statements each see a fresh snapshot (it is VOLATILE and the transaction is
-- READ COMMITTED), so the highest position is read after the lock was taken; and one call is one
-- message, so no client ever holds the lock across a round trip.

CREATE TABLE ledger.events (
    position  bigint      NOT NULL PRIMARY KEY,
    recorded  timestamptz NOT NULL,
    stream    text COLLATE "C" NOT NULL,
    version   integer     NOT NULL,
    name      text COLLATE "C" NOT NULL,
    body      bytea       NOT NULL,
    leaf      bytea       NOT NULL,
    -- Of a decision: the position of its request, and its number among that request's decisions.
    -- Both stand in the body too; here they make "decided twice" impossible and look-ups quick.
    causation bigint,
    ordinal   integer,
    UNIQUE (stream, version),
    CONSTRAINT position_counts_from_one CHECK (position >= 1),
    CONSTRAINT version_is_not_negative CHECK (version >= 0),
    CONSTRAINT words_have_no_spaces CHECK (stream ~ '^[!-~]+$' AND name ~ '^[!-~]+$'),
    CONSTRAINT leaf_is_sha256 CHECK (octet_length(leaf) = 32),
    CONSTRAINT cause_is_earlier CHECK (causation < position AND (causation IS NULL) = (ordinal IS NULL)),
    -- Four spaces, a line feed and a recorded time of 27 characters stand in the head as well.
    CONSTRAINT entry_fits_a_tile CHECK (
        length(position::text) + 27 + octet_length(stream) + length(version::text)
        + octet_length(name) + 5 + octet_length(body) <= 65535)
);

CREATE UNIQUE INDEX events_causation ON ledger.events (causation, ordinal)
    WHERE causation IS NOT NULL;

-- Request ids are unique per caller; the first answer is the run of positions that they brought.
-- Erasable on purpose: a digest of what somebody sent may have to go with that person's data.
CREATE TABLE ledger.request_ids (
    caller         text COLLATE "C" NOT NULL,
    request_id     text COLLATE "C" NOT NULL,
    digest         bytea  NOT NULL,
    first_position bigint NOT NULL,
    events         integer NOT NULL,
    PRIMARY KEY (caller, request_id)
);

CREATE FUNCTION ledger.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the log is append-only: % of ledger.events is refused', TG_OP
        USING ERRCODE = 'insufficient_privilege',
              HINT = 'Record a new event that corrects the old one.';
END $$;

CREATE TRIGGER events_stay BEFORE UPDATE OR DELETE ON ledger.events
    FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER events_are_not_emptied BEFORE TRUNCATE ON ledger.events
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
-- ALWAYS: they fire even where somebody sets session_replication_role to replica.
ALTER TABLE ledger.events ENABLE ALWAYS TRIGGER events_stay;
ALTER TABLE ledger.events ENABLE ALWAYS TRIGGER events_are_not_emptied;

-- The first twelve hexadecimal digits of SHA-256('guishu append'), as the key of the append lock.
CREATE FUNCTION ledger.append_lock_key() RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
    'SELECT 11574172018864::bigint';

-- Appends a group of appends in one transaction, all of it or nothing.
-- append to ordinal have an element per event. append rises from 1; a NULL version means "whatever
-- comes next"; step numbers the events of one stream within the group from 1.
-- The request arrays have an element per append that has a request id: request_event is the place
-- of its first event in the group (from 1), request_events says how many events it has.
-- The caller sees to it that no two appends of one group share a stream of which one states
-- versions, or a request id.
-- Where everything holds the answer is one row: (0, 'appended', first position, event count).
-- Else nothing is appended, and each append that does not hold has a row that says why:
-- version_conflict | request_repeated (with its first answer) | request_reused.
CREATE FUNCTION ledger.append_events(
    append integer[], stream text[], version integer[], step integer[], name text[], body bytea[],
    causation bigint[], ordinal integer[],
    request_append integer[], request_caller text[], request_id text[], request_digest bytea[],
    request_event integer[], request_events integer[]
) RETURNS TABLE (append_number integer, outcome text, first_position bigint, event_count integer)
LANGUAGE plpgsql VOLATILE
-- Every look-up goes by a whole key: a plan made while the tables were empty must neither scan
-- them later nor be made anew for each group.
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    last_position bigint;
    last_recorded timestamptz;
    stamp timestamptz;
    stamp_text text;
BEGIN
    PERFORM pg_advisory_xact_lock(ledger.append_lock_key());
    -- Later statements than the lock: they see all that was committed before the lock was ours.
    RETURN QUERY
        SELECT r.append,
               CASE WHEN r.digest = r.known_digest THEN 'request_repeated'
                    ELSE 'request_reused' END,
               r.known_position, r.known_events
        FROM (
            SELECT a.append, a.digest, k.digest AS known_digest,
                   k.first_position AS known_position, k.events AS known_events
            FROM unnest(request_append, request_caller, request_id, request_digest)
                     AS a(append, caller, id, digest)
            CROSS JOIN LATERAL (SELECT * FROM ledger.request_ids r
                                WHERE r.caller = a.caller AND r.request_id = a.id LIMIT 1) k
        ) r;
    IF NOT FOUND THEN
        RETURN QUERY
            SELECT DISTINCT a.append, 'version_conflict', NULL::bigint, NULL::integer
            FROM unnest(append, stream, version, step) AS a(append, stream, version, step)
            WHERE a.version IS NOT NULL AND a.version - a.step <> coalesce(
                (SELECT e.version FROM ledger.events e WHERE e.stream = a.stream
                 ORDER BY e.version DESC LIMIT 1),
                -- A stream begins at 1, or at 0 as in the library's own recorders.
                CASE WHEN a.version - a.step = -1 THEN -1 ELSE 0 END);
    END IF;
    IF FOUND THEN
        RETURN;
    END IF;

    SELECT e.position, e.recorded INTO last_position, last_recorded
        FROM ledger.events e ORDER BY e.position DESC LIMIT 1;
    last_position := coalesce(last_position, 0);
    stamp := greatest(clock_timestamp(), last_recorded);
    stamp_text := ' ' || to_char(stamp AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') || ' ';
    INSERT INTO ledger.events
        (position, recorded, stream, version, name, body, leaf, causation, ordinal)
    SELECT last_position + p.n, stamp, p.stream, p.version, p.name, p.body,
           sha256('\x00'::bytea
                  || convert_to((last_position + p.n) || stamp_text || p.stream || ' '
                                || p.version || ' ' || p.name || E'\n', 'UTF8')
                  || p.body),
           p.causation, p.ordinal
    FROM (
        SELECT a.n, a.stream, a.name, a.body, a.causation, a.ordinal,
               coalesce(a.version, a.step + coalesce(
                   (SELECT e.version FROM ledger.events e WHERE e.stream = a.stream
                    ORDER BY e.version DESC LIMIT 1), 0)) AS version
        FROM unnest(stream, version, step, name, body, causation, ordinal) WITH ORDINALITY
            AS a(stream, version, step, name, body, causation, ordinal, n)
        OFFSET 0  -- so that the version is looked up once, not at each use
    ) p;
    INSERT INTO ledger.request_ids (caller, request_id, digest, first_position, events)
    SELECT a.caller, a.id, a.digest, last_position + a.event, a.events
    FROM unnest(request_caller, request_id, request_digest, request_event, request_events)
        AS a(caller, id, digest, event, events);
    RETURN QUERY SELECT 0, 'appended', last_position + 1, cardinality(append);
END $$;

-- The same for a transaction that must not commit unless everything in it holds (an enforcer's):
-- it is the last statement before COMMIT in one message, so the refusal has to happen here.
CREATE FUNCTION ledger.append_events_or_fail(
    append integer[], stream text[], version integer[], step integer[], name text[], body bytea[],
    causation bigint[], ordinal integer[],
    request_append integer[], request_caller text[], request_id text[], request_digest bytea[],
    request_event integer[], request_events integer[]
) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    answer record;
BEGIN
    SELECT * INTO answer FROM ledger.append_events(
        append, stream, version, step, name, body, causation, ordinal,
        request_append, request_caller, request_id, request_digest, request_event, request_events)
        LIMIT 1;
    IF answer.outcome IS DISTINCT FROM 'appended' THEN
        RAISE EXCEPTION 'append % does not hold: %', answer.append_number, answer.outcome
            USING ERRCODE = 'GS001';
    END IF;
    RETURN answer.first_position;
END $$;

-- Who may what: the service inserts and selects events, and nothing else.
REVOKE ALL ON FUNCTION ledger.append_events FROM PUBLIC;
REVOKE ALL ON FUNCTION ledger.append_events_or_fail FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ledger.append_events_or_fail TO guishu_app;
GRANT EXECUTE ON FUNCTION ledger.append_events TO guishu_app;
GRANT EXECUTE ON FUNCTION ledger.append_lock_key TO guishu_app;
GRANT SELECT, INSERT ON ledger.events TO guishu_app;
GRANT SELECT, INSERT ON ledger.request_ids TO guishu_app;
