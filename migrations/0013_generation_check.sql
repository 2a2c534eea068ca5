-- Nothing is appended on a timeline that no generation was opened for: a process that outlives a
-- failover would go on numbering where its new server ends, whatever others have seen of the old
-- one's tail.

-- A ledger that has no generation yet is as old as this migration, and gets one at the next start.
CREATE FUNCTION ledger.refuse_another_timeline() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Not this_server(): that reads the control file, and this is asked with every append.
    IF (SELECT g.timeline FROM ledger.generations g ORDER BY g.generation DESC LIMIT 1)
       <> ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::integer THEN
        RAISE EXCEPTION 'no generation was opened for this timeline'
            USING ERRCODE = 'GS004', HINT = 'Start guishu anew: it opens one, if nothing is lost.';
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER events_of_this_timeline BEFORE INSERT ON ledger.events
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_another_timeline();

REVOKE ALL ON FUNCTION ledger.refuse_another_timeline FROM PUBLIC;
