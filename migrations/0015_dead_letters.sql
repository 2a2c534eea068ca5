-- Records of the log's topic that cannot be read: somebody else has written them, or a version of
-- guishu that this one does not know. They are put aside here for people to look at, and whoever
-- reads the topic goes on: what is missing in between is read from the log, so nothing is lost.

CREATE TABLE ledger.dead_letters (
    topic         text COLLATE "C" NOT NULL,
    partition     integer NOT NULL,
    -- Not called offset, which is a word of SQL.
    record_offset bigint  NOT NULL,
    -- Each as the record has it, up to a bound; whatever is longer is none of ours.
    key           bytea CHECK (octet_length(key) <= 65536),
    value         bytea CHECK (octet_length(value) <= 65536),
    -- JSON: pairs of a name and the value in Base64, or null. Not jsonb, which holds no U+0000.
    headers       bytea NOT NULL CHECK (octet_length(headers) <= 131072),
    is_whole      boolean NOT NULL,
    -- Of the whole record: how long it is, and its SHA-256. In a topic that was made anew another
    -- record may stand at the same place.
    bytes         bigint  NOT NULL,
    digest        bytea   NOT NULL CHECK (octet_length(digest) = 32),
    code          text    NOT NULL,
    words         text    NOT NULL,
    -- How often it was tried to read it.
    attempts      integer NOT NULL DEFAULT 1,
    first_seen    timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_seen     timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Since when nobody wants to hear of it, however often it is met; its content is gone.
    dropped       timestamptz,
    PRIMARY KEY (topic, partition, record_offset)
);
CREATE INDEX dead_letters_told ON ledger.dead_letters (first_seen) WHERE dropped IS NULL;
GRANT SELECT, INSERT, UPDATE, DELETE ON ledger.dead_letters TO guishu_app;

-- Of what is parked only few have an error themselves; many may wait behind them.
CREATE INDEX parked_requests_in_error ON ledger.parked_requests (position) WHERE error IS NOT NULL;
