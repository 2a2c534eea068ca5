-- The parts of a consumer's progress can become one again, where all have reached the same position.

-- A function, for the service may delete nothing there by itself: a part that is gone would take
-- with it what it had not reached.
CREATE FUNCTION ledger.unite_progress(named text) RETURNS void LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM FROM ledger.consumer_progress WHERE consumer = named ORDER BY partition FOR UPDATE;
    -- A later statement than the locks: nobody moves a part any more.
    IF (SELECT count(DISTINCT position) FROM ledger.consumer_progress WHERE consumer = named) > 1 THEN
        RAISE EXCEPTION 'the parts of % have not reached the same position', named
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    UPDATE ledger.consumer_progress SET epoch = epoch + 1 WHERE consumer = named;
    DELETE FROM ledger.consumer_progress WHERE consumer = named AND partition > 0;
END $$;

REVOKE ALL ON FUNCTION ledger.unite_progress FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ledger.unite_progress TO guishu_app;
