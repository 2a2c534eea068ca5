-- A tail of the log that a failover or a restore has lost, and that the log's topic still holds, is
-- put back before a generation is opened. What cannot be put back is given up by somebody, and
-- that stays on record.

ALTER TABLE ledger.generations
    -- How many events right in front of the first position were put back when it was opened.
    ADD COLUMN put_back bigint NOT NULL DEFAULT 0,
    -- Who has given up what an older generation had from the first position on, and up to which
    -- position of it something was known: NULL where nothing was.
    ADD COLUMN given_up_by   text,
    ADD COLUMN given_up_upto bigint;

-- The relay sends the digest of a request with its first event, and finds it by its position.
CREATE INDEX request_ids_first_position ON ledger.request_ids (first_position);

-- As before (0013), but for what is put back, which put_back_events writes as the owner of the log.
CREATE OR REPLACE FUNCTION ledger.refuse_another_timeline() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Not this_server(): that reads the control file, and this is asked with every append.
    IF (SELECT g.timeline FROM ledger.generations g ORDER BY g.generation DESC LIMIT 1)
       <> ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::integer THEN
        IF current_user <> (SELECT pg_get_userbyid(c.relowner) FROM pg_class c
                            WHERE c.oid = TG_RELID) THEN
            RAISE EXCEPTION 'no generation was opened for this timeline' USING ERRCODE = 'GS004',
                HINT = 'Start guishu anew: it opens one, if nothing is lost.';
        END IF;
    END IF;
    RETURN NULL;
END $$;

-- Puts events back behind the last one, byte for byte, and returns the last position. The arrays
-- are those of append_events, with every version stated and the recorded times.
--
-- SECURITY DEFINER, for nothing else may write while this server has no generation. It writes the
-- next dense positions, in streams that go on where they end, at times that do not go back; and
-- nothing at all once a generation is open, when the service appends by itself.
CREATE FUNCTION ledger.put_back_events(
    first_position bigint, recorded timestamptz[],
    stream text[], version integer[], name text[], body bytea[],
    causation bigint[], ordinal integer[],
    caller text[], request_id text[], digest bytea[],
    request_event integer[], request_events integer[]
) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    last_position bigint;
    last_recorded timestamptz;
    steps integer[];
BEGIN
    PERFORM pg_advisory_xact_lock(ledger.append_lock_key());
    -- Later statements than the lock: they see all that was committed before the lock was ours.
    IF EXISTS (SELECT FROM (SELECT g.system, g.timeline FROM ledger.generations g
                            ORDER BY g.generation DESC LIMIT 1) g
               JOIN ledger.this_server() s USING (system, timeline)) THEN
        RAISE EXCEPTION 'a generation is open on this server: nothing is put back'
            USING ERRCODE = 'GS005';
    END IF;
    SELECT e.position, e.recorded INTO last_position, last_recorded
        FROM ledger.events e ORDER BY e.position DESC LIMIT 1;
    last_position := coalesce(last_position, 0);
    IF put_back_events.first_position <> last_position + 1 THEN
        RAISE EXCEPTION 'the log ends at %, and position % is to be put back',
            last_position, put_back_events.first_position USING ERRCODE = 'GS006';
    END IF;
    IF EXISTS (SELECT FROM (SELECT a.at, lag(a.at, 1, last_recorded) OVER (ORDER BY a.n) AS before
                            FROM unnest(put_back_events.recorded) WITH ORDINALITY AS a(at, n)) t
               WHERE t.at < t.before) THEN
        RAISE EXCEPTION 'an event was recorded before the one in front of it'
            USING ERRCODE = 'GS006';
    END IF;
    steps := ARRAY(SELECT row_number() OVER (PARTITION BY a.stream ORDER BY a.n)
                   FROM unnest(put_back_events.stream) WITH ORDINALITY AS a(stream, n)
                   ORDER BY a.n);
    IF EXISTS (SELECT FROM ledger.version_conflicts(
            put_back_events.stream, put_back_events.version, steps)) THEN
        RAISE EXCEPTION 'a version does not follow on the last one of its stream'
            USING ERRCODE = 'GS006';
    END IF;
    INSERT INTO ledger.events
        (position, recorded, stream, version, name, body, leaf, causation, ordinal)
    SELECT last_position + a.n, a.recorded, a.stream, a.version, a.name, a.body,
           sha256('\x00'::bytea
                  || convert_to((last_position + a.n) || ' ' || to_char(
                         a.recorded AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
                     || ' ' || a.stream || ' ' || a.version || ' ' || a.name || E'\n', 'UTF8')
                  || a.body),
           a.causation, a.ordinal
    FROM unnest(put_back_events.recorded, put_back_events.stream, put_back_events.version,
                put_back_events.name, put_back_events.body, put_back_events.causation,
                put_back_events.ordinal) WITH ORDINALITY
        AS a(recorded, stream, version, name, body, causation, ordinal, n);
    INSERT INTO ledger.request_ids (caller, request_id, digest, first_position, events)
    SELECT a.caller, a.id, a.digest, last_position + a.event, a.events
    FROM unnest(put_back_events.caller, put_back_events.request_id, put_back_events.digest,
                put_back_events.request_event, put_back_events.request_events)
        AS a(caller, id, digest, event, events);
    RETURN last_position + cardinality(put_back_events.stream);
END $$;

-- Opens a generation as open_generation() does, with what is to stay on record about it; where
-- something is given up, also on the server that wrote last. Its number is above every one that
-- the topic knows, so that nothing of an older one is ever taken for one of its own.
CREATE FUNCTION ledger.open_generation(
    known_generation integer, put_back bigint, given_up_by text, given_up_upto bigint
) RETURNS ledger.generations LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    in_force ledger.generations;
    here record;
BEGIN
    PERFORM pg_advisory_xact_lock(ledger.append_lock_key());
    SELECT * INTO in_force FROM ledger.generations g ORDER BY g.generation DESC LIMIT 1;
    SELECT * INTO here FROM ledger.this_server();
    IF open_generation.given_up_by IS NOT NULL
       OR (in_force.system, in_force.timeline) IS DISTINCT FROM (here.system, here.timeline) THEN
        INSERT INTO ledger.generations (generation, first_position, system, timeline, put_back,
                                        given_up_by, given_up_upto)
        SELECT greatest(in_force.generation, open_generation.known_generation) + 1,
               coalesce(max(e.position), 0) + 1, here.system, here.timeline,
               open_generation.put_back, open_generation.given_up_by, open_generation.given_up_upto
        FROM ledger.events e
        RETURNING * INTO in_force;
    END IF;
    RETURN in_force;
END $$;

REVOKE ALL ON FUNCTION ledger.put_back_events, ledger.open_generation(integer, bigint, text, bigint)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    ledger.put_back_events, ledger.open_generation(integer, bigint, text, bigint) TO guishu_app;
