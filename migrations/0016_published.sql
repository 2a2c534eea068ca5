-- What subscribers have been told, as far as it takes to tell them more.

-- How each customer stands at the position below: by which ids others know it, and whose it is. A
-- decision says neither, and the read models may stand further on. It is folded from the log, moves
-- with the checkpoints of the public topics, and is made anew with the first of them.
CREATE TABLE ledger.published (
    customer text COLLATE "C" NOT NULL PRIMARY KEY,
    state    bytea NOT NULL
) WITH (fillfactor = 80);

CREATE TABLE ledger.published_upto (
    -- There is one row.
    the_one  boolean NOT NULL PRIMARY KEY DEFAULT true CHECK (the_one),
    position bigint  NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

INSERT INTO ledger.published_upto DEFAULT VALUES;

-- No history is lost with what is folded from it: to begin anew it is emptied.
GRANT SELECT, INSERT, UPDATE, TRUNCATE ON ledger.published TO guishu_app;
GRANT SELECT, UPDATE ON ledger.published_upto TO guishu_app;
