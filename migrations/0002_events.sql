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
    -- Only what the append function could get wrong by its input, and as few words as will do: the
    -- constraint is parsed anew with every statement that inserts.
    CONSTRAINT event_is_well_formed CHECK (
        stream ~ '^[!-~]+$' AND name ~ '^[!-~]+$' AND causation < position
        -- Of an entry's 65,535 bytes the rest of its head takes up to 61: the longest position and
        -- version, a recorded time of 27 characters, four spaces and a line feed.
        AND octet_length(stream) + octet_length(name) + octet_length(body) <= 65474)
);

-- NULLS NOT DISTINCT: a decision without an ordinal is the only one of its cause.
CREATE UNIQUE INDEX events_causation ON ledger.events (causation, ordinal) NULLS NOT DISTINCT
    WHERE causation IS NOT NULL;

-- Request ids are unique per caller; the first answer is the run of positions that they brought.
-- Erasable on purpose: a digest of what somebody sent may have to go with that person's data.
CREATE TABLE ledger.request_ids (
    caller         text COLLATE "C" NOT NULL,
    request_id     text COLLATE "C" NOT NULL,
    digest         bytea  NOT NULL,
    first_position bigint NOT NULL,
    events         integer NOT NULL,
    -- The id first: it tells nearly everything apart, so one comparison of text suffices.
    PRIMARY KEY (request_id, caller)
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

-- A group of appends comes as arrays.
--
-- stream to ordinal have an element per event, in the order of the log. A version is what the
-- event must have, NULL whatever comes next in its stream. A step numbers the events of one stream
-- within the group from 1.
-- caller to request_events have an element per append that has a request id: request_event is the
-- place of its first event in the group, counted from 1, and request_events says how many it has.
--
-- version, step, causation, ordinal, request_event and request_events may be empty: then versions,
-- causations and ordinals are NULL, every stream comes once, and every event has a request of its
-- own. The caller sees to it that no two appends of a group share a stream of which one states
-- versions, or a request id, and that a stream's versions are stated for all its events, each one
-- more than that before, or for none.

-- The places of the events whose stated version is not the next one of their stream.
CREATE FUNCTION ledger.version_conflicts(stream text[], version integer[], step integer[])
RETURNS TABLE (place integer) LANGUAGE sql STABLE AS $$
    SELECT a.place::integer
    FROM unnest($1, $2, $3) WITH ORDINALITY AS a(stream, version, step, place)
    WHERE a.version - coalesce(a.step, 1) <> coalesce(
        (SELECT e.version FROM ledger.events e WHERE e.stream = a.stream
         ORDER BY e.version DESC LIMIT 1),
        -- A stream begins at 1, or at 0 as in the library's own recorders.
        CASE WHEN a.version - coalesce(a.step, 1) = -1 THEN -1 ELSE 0 END)
$$;

-- The requests that were recorded before: the place of their first event, whether the content is
-- the same, and the first answer.
CREATE FUNCTION ledger.known_requests(
    caller text[], request_id text[], digest bytea[], request_event integer[]
) RETURNS TABLE (place integer, same boolean, first_position bigint, event_count integer)
LANGUAGE sql STABLE AS $$
    SELECT coalesce(a.event, a.n)::integer, k.digest = a.digest, k.first_position, k.events
    FROM unnest($1, $2, $3, $4) WITH ORDINALITY AS a(caller, id, digest, event, n)
    CROSS JOIN LATERAL (SELECT * FROM ledger.request_ids r
                        WHERE r.request_id = a.id AND r.caller = a.caller LIMIT 1) k
$$;

-- Appends a group in one transaction, and returns the first position; the others follow it.
-- Returns NULL, and appends nothing, where not all of it holds: ledger.refusals then says what.
CREATE FUNCTION ledger.append_events(
    stream text[], version integer[], step integer[], name text[], body bytea[],
    causation bigint[], ordinal integer[],
    caller text[], request_id text[], digest bytea[],
    request_event integer[], request_events integer[]
) RETURNS bigint
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
    -- An expression costs less than a statement; the lock's value is never NULL.
    IF pg_advisory_xact_lock(ledger.append_lock_key()) IS NULL THEN
        RETURN NULL;
    END IF;
    -- Later statements than the lock: they see all that was committed before the lock was ours.
    IF cardinality(version) > 0 THEN
        IF EXISTS (SELECT FROM ledger.version_conflicts(
                append_events.stream, append_events.version, append_events.step)) THEN
            RETURN NULL;
        END IF;
    END IF;
    IF cardinality(request_id) > 0 THEN
        -- One index scan for all; only where an id is known at all its caller has to be compared.
        IF EXISTS (SELECT FROM ledger.request_ids r
                   WHERE r.request_id = ANY (append_events.request_id)) THEN
            IF EXISTS (SELECT FROM ledger.known_requests(
                    append_events.caller, append_events.request_id,
                    append_events.digest, append_events.request_event)) THEN
                RETURN NULL;
            END IF;
        END IF;
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
               coalesce(a.version, coalesce(a.step, 1) + coalesce(
                   (SELECT e.version FROM ledger.events e WHERE e.stream = a.stream
                    ORDER BY e.version DESC LIMIT 1), 0)) AS version
        FROM unnest(stream, version, step, name, body, causation, ordinal) WITH ORDINALITY
            AS a(stream, version, step, name, body, causation, ordinal, n)
        OFFSET 0  -- so that the version is looked up once, not at each use
    ) p;
    IF cardinality(request_id) > 0 THEN
        INSERT INTO ledger.request_ids (caller, request_id, digest, first_position, events)
        SELECT a.caller, a.id, a.digest,
               last_position + coalesce(a.event, a.n), coalesce(a.events, 1)
        FROM unnest(caller, request_id, digest, request_event, request_events) WITH ORDINALITY
            AS a(caller, id, digest, event, events, n);
    END IF;
    RETURN last_position + 1;
END $$;

-- Says what does not hold of a group, by the place of an event of each append concerned:
-- version_conflict | request_repeated (with its first answer) | request_reused.
-- A request that is known is not looked at further. The log only grows, hence what append_events
-- refused is still refused now, unless it had stated a version that was yet to come.
CREATE FUNCTION ledger.refusals(
    stream text[], version integer[], step integer[], name text[], body bytea[],
    causation bigint[], ordinal integer[],
    caller text[], request_id text[], digest bytea[],
    request_event integer[], request_events integer[]
) RETURNS TABLE (place integer, outcome text, first_position bigint, event_count integer)
LANGUAGE sql STABLE AS $$
    SELECT k.place, CASE WHEN k.same THEN 'request_repeated' ELSE 'request_reused' END,
           k.first_position, k.event_count
    FROM ledger.known_requests($8, $9, $10, $11) k
    UNION ALL
    SELECT c.place, 'version_conflict', NULL, NULL
    FROM ledger.version_conflicts($1, $2, $3) c
$$;

-- The same for a transaction that must not commit unless everything in it holds (an enforcer's):
-- it is the last statement before COMMIT in one message, so the refusal has to happen here.
CREATE FUNCTION ledger.append_events_or_fail(
    stream text[], version integer[], step integer[], name text[], body bytea[],
    causation bigint[], ordinal integer[],
    caller text[], request_id text[], digest bytea[],
    request_event integer[], request_events integer[]
) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    first_position bigint := ledger.append_events(
        stream, version, step, name, body, causation, ordinal,
        caller, request_id, digest, request_event, request_events);
    refusal record;
BEGIN
    IF first_position IS NULL THEN
        SELECT * INTO refusal FROM ledger.refusals(
            stream, version, step, name, body, causation, ordinal,
            caller, request_id, digest, request_event, request_events) LIMIT 1;
        RAISE EXCEPTION 'event % of the transaction does not hold: %',
            refusal.place, refusal.outcome USING ERRCODE = 'GS001';
    END IF;
    RETURN first_position;
END $$;

-- Who may what: the service inserts and selects events, and nothing else.
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA ledger FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    ledger.append_lock_key, ledger.version_conflicts, ledger.known_requests,
    ledger.append_events, ledger.refusals, ledger.append_events_or_fail
    TO guishu_app;
GRANT SELECT, INSERT ON ledger.events TO guishu_app;
GRANT SELECT, INSERT ON ledger.request_ids TO guishu_app;
