-- Work that takes longer than a request: imports and what-ifs. A job is a row, so that it survives
-- a restart, goes on elsewhere, and can be cancelled.

CREATE TABLE api.jobs (
    -- Ids made later sort later.
    job          text COLLATE "C" NOT NULL PRIMARY KEY,
    kind         text NOT NULL CHECK (kind IN ('import', 'what_if')),
    -- Who asked: the principal, and the person who acts.
    caller       text COLLATE "C" NOT NULL,
    actor        text COLLATE "C" NOT NULL,
    on_behalf    boolean NOT NULL,
    -- The caller's key, and a keyed digest of what was asked under it.
    request_id   text COLLATE "C" NOT NULL,
    digest       bytea NOT NULL,
    parameters   jsonb NOT NULL,
    state        text NOT NULL DEFAULT 'waiting'
        CHECK (state IN ('waiting', 'running', 'done', 'failed', 'cancelled')),
    -- Somebody wants it to end; whoever works on it looks every second.
    cancelling   boolean NOT NULL DEFAULT false,
    progress     text NOT NULL DEFAULT 'waiting',
    done         bigint NOT NULL DEFAULT 0,
    total        bigint NOT NULL DEFAULT 0,
    result       jsonb,
    -- The code, sentence and way out of the error that ended it.
    error        jsonb,
    asked        timestamptz NOT NULL DEFAULT clock_timestamp(),
    began        timestamptz,
    ended        timestamptz,
    -- Who works on it, and until when that holds without being renewed.
    worker       text,
    lease_until  timestamptz,
    attempts     integer NOT NULL DEFAULT 0,
    UNIQUE (caller, request_id)
);
CREATE INDEX jobs_open ON api.jobs (job) WHERE state IN ('waiting', 'running');
CREATE INDEX jobs_caller ON api.jobs (caller, job);
GRANT SELECT, INSERT ON api.jobs TO guishu_app;
GRANT UPDATE (state, cancelling, progress, done, total, result, error, began, ended, worker,
              lease_until, attempts) ON api.jobs TO guishu_app;

-- What was uploaded for a job, and what it made, in pieces. They hold personal data in plain: what
-- was uploaded goes as soon as the job has ended, what it made some weeks later.
CREATE TABLE api.job_files (
    job      text COLLATE "C" NOT NULL REFERENCES api.jobs,
    file     text COLLATE "C" NOT NULL,
    number   integer NOT NULL,
    content  bytea NOT NULL,
    PRIMARY KEY (job, file, number)
);
GRANT SELECT, INSERT, DELETE ON api.job_files TO guishu_app;
