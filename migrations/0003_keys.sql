-- The keys of personal data, each wrapped by the master key, outside the log: destroying one is
-- how a subject's data are erased, while the log stays whole.

CREATE TABLE keys.subject_keys (
    key_id  text COLLATE "C" NOT NULL PRIMARY KEY,
    subject text COLLATE "C" NOT NULL UNIQUE,
    wrapped bytea NOT NULL,
    master  text NOT NULL,
    made_at timestamptz NOT NULL DEFAULT now(),
    -- A nonce of 12 bytes, a key of 32, a tag of 16.
    CONSTRAINT wrapped_key_is_whole CHECK (octet_length(wrapped) = 60)
);
GRANT SELECT, INSERT, DELETE ON keys.subject_keys TO guishu_app;

-- Tells whether a master key is the right one, and keeps what must outlive a change of it: the
-- keys of the digests that stand in the log, derived from the first master key, wrapped by the
-- present one. One row at most.
CREATE TABLE keys.master_check (
    only_one boolean NOT NULL PRIMARY KEY DEFAULT true CHECK (only_one),
    master   text NOT NULL,
    wrapped  bytea NOT NULL,
    made_at  timestamptz NOT NULL DEFAULT now()
);
GRANT SELECT, INSERT ON keys.master_check TO guishu_app;
