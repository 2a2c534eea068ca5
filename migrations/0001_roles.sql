-- The service must never run with the rights of the tables' owner: whoever owns a table can
-- drop the triggers that keep the log append-only. So the service acts as a role of its own,
-- and the objects live in schemas where that role gets only what it needs.
--
--   ledger       the log and what belongs to it: rights are granted table by table
--   keys         the wrapped keys of sealed data, apart, so that a dump can leave them out
--   projections  the read models: the service builds them aside and swaps them, so it owns them

-- Roles belong to the whole cluster, and several databases of one cluster may be migrated at
-- once. An advisory lock holds for one database only, therefore the loser of the race looks again.
DO $roles$
BEGIN
    FOR attempt IN 1..10 LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'guishu_app') THEN
                CREATE ROLE guishu_app NOLOGIN;
                -- A service that hangs inside a transaction holds locks that others wait for.
                ALTER ROLE guishu_app SET idle_in_transaction_session_timeout = '10s';
            END IF;
            -- From PostgreSQL 16 on, who creates a role may grant it, but not yet act as it;
            -- before, there was no such difference, nor the word for it.
            IF NOT pg_has_role(
                current_user,
                'guishu_app',
                CASE WHEN current_setting('server_version_num')::integer >= 160000
                     THEN 'SET' ELSE 'MEMBER' END
            ) THEN
                EXECUTE format('GRANT guishu_app TO %I', current_user);
            END IF;
            EXIT;
        EXCEPTION
            -- The last is "tuple concurrently updated", for which there is no code of its own.
            WHEN duplicate_object OR unique_violation OR internal_error THEN
                IF attempt = 10 THEN
                    RAISE;
                END IF;
        END;
    END LOOP;
END
$roles$;

CREATE SCHEMA ledger;
CREATE SCHEMA keys;
CREATE SCHEMA projections;

GRANT USAGE ON SCHEMA ledger TO guishu_app;
GRANT USAGE ON SCHEMA keys TO guishu_app;
GRANT USAGE, CREATE ON SCHEMA projections TO guishu_app;

-- Nobody but the owner has business in schema public; the service reads there which
-- migrations were applied, to say whether it is ready.
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO guishu_app;
GRANT SELECT ON public.guishu_migrations TO guishu_app;
