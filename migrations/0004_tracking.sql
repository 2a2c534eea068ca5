-- What applications written with the eventsourcing library keep beside the log: how far a follower
-- has come, and snapshots of aggregates. Both follow from the log and may be thrown away.

-- The free room lets an update stay on its page and touch no index.
CREATE TABLE ledger.tracking (
    application_name text COLLATE "C" NOT NULL PRIMARY KEY,
    notification_id  bigint NOT NULL
) WITH (fillfactor = 50);

-- Says that a follower has processed everything up to a position. Fails unless that is further
-- than before, so that of two that follow under one name only one can go on.
CREATE FUNCTION ledger.record_tracking(application_name text, notification_id bigint)
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    INSERT INTO ledger.tracking AS t VALUES ($1, $2)
    ON CONFLICT ON CONSTRAINT tracking_pkey DO UPDATE SET notification_id = excluded.notification_id
        WHERE t.notification_id < excluded.notification_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION '% has already processed position %', $1, $2 USING ERRCODE = 'GS002';
    END IF;
END $$;

CREATE TABLE ledger.snapshots (
    stream  text COLLATE "C" NOT NULL,
    version integer NOT NULL,
    name    text COLLATE "C" NOT NULL,
    body    bytea NOT NULL,
    PRIMARY KEY (stream, version)
);

REVOKE ALL ON FUNCTION ledger.record_tracking FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ledger.record_tracking TO guishu_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON ledger.tracking TO guishu_app;
GRANT SELECT, INSERT, DELETE ON ledger.snapshots TO guishu_app;
