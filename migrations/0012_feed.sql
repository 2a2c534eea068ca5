-- The generations of the log, and what the relay to Kafka keeps beside it.

-- A generation is what one server wrote on one timeline, from its first position on. After a
-- failover or a restore the log may have lost a tail that others have seen already: then the same
-- positions are given again, to other events, and the generation tells the two apart.
CREATE TABLE ledger.generations (
    generation     integer NOT NULL PRIMARY KEY,
    first_position bigint  NOT NULL CHECK (first_position > 0),
    -- The server's system identifier, which a copy of its data folder has too, and its timeline,
    -- which rises when a standby is promoted or a backup recovered.
    system         text COLLATE "C" NOT NULL,
    timeline       integer NOT NULL,
    opened         timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The server as it is now. Of the timeline the control file would tell only with the next
-- checkpoint; the name of the file that is written tells it at once.
CREATE FUNCTION ledger.this_server() RETURNS TABLE (system text, timeline integer)
LANGUAGE sql VOLATILE AS $$
    SELECT s.system_identifier::text,
           ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::integer
    FROM pg_control_system() s
$$;

-- Opens a generation where this server is not the one that wrote last, and returns the one in
-- force. It takes the append lock, so that no append comes between.
CREATE FUNCTION ledger.open_generation() RETURNS ledger.generations LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    in_force ledger.generations;
    here record;
BEGIN
    PERFORM pg_advisory_xact_lock(ledger.append_lock_key());
    -- Later statements than the lock: they see all that was committed before the lock was ours.
    SELECT * INTO in_force FROM ledger.generations g ORDER BY g.generation DESC LIMIT 1;
    SELECT * INTO here FROM ledger.this_server();
    IF (in_force.system, in_force.timeline) IS DISTINCT FROM (here.system, here.timeline) THEN
        INSERT INTO ledger.generations (generation, first_position, system, timeline)
        SELECT coalesce(in_force.generation, 0) + 1, coalesce(max(e.position), 0) + 1,
               here.system, here.timeline
        FROM ledger.events e
        RETURNING * INTO in_force;
    END IF;
    RETURN in_force;
END $$;

-- How far a topic has been filled. The epoch rises with each new relay: an older one is a zombie.
-- A topic that was made anew has another id, and is filled again from the beginning.
CREATE TABLE ledger.relay (
    topic      text COLLATE "C" NOT NULL PRIMARY KEY,
    epoch      bigint NOT NULL DEFAULT 0,
    position   bigint NOT NULL DEFAULT 0,
    partitions integer,
    topic_id   uuid
) WITH (fillfactor = 50);

-- The highest position at or below the topic's that belongs to each partition: what the next record
-- of the partition names as the one before it.
CREATE TABLE ledger.relay_partitions (
    topic     text COLLATE "C" NOT NULL,
    partition integer NOT NULL,
    position  bigint  NOT NULL,
    PRIMARY KEY (topic, partition)
) WITH (fillfactor = 50);

REVOKE ALL ON FUNCTION ledger.this_server, ledger.open_generation FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ledger.this_server, ledger.open_generation TO guishu_app;
GRANT SELECT, INSERT ON ledger.generations TO guishu_app;
GRANT SELECT, INSERT, UPDATE ON ledger.relay TO guishu_app;
GRANT SELECT, INSERT, UPDATE ON ledger.relay_partitions TO guishu_app;
