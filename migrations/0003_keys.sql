-- The keys of personal data, each wrapped by the master key, outside the log: destroying one is
-- how a subject's data are erased, while the log stays whole.

CREATE TABLE keys.subject_keys (
    key_id  text COLLATE "C" NOT NULL PRIMARY KEY,
    subject text COLLATE "C" NOT NULL UNIQUE,
    wrapped bytea NOT NULL,
    master  text NOT NULL,
    made_at timestamptz NOT NULL DEFAULT now()
);
GRANT SELECT, INSERT, DELETE ON keys.subject_keys TO guishu_app;
