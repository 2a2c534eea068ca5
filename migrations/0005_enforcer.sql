-- What the enforcer keeps beside the log: guards, progress, parked requests. All of it follows
-- from the log and can be made again from it (guishu rebuild --guards).

-- A guard is a row that is locked before deciding, and holds the settled state that it guards:
-- a customer's, a person's holdings, the grants of a person on a day, an identifier, an act.
-- The free room lets an update stay on its page and touch no index.
CREATE TABLE ledger.guards (
    key     text COLLATE "C" NOT NULL PRIMARY KEY,
    version integer NOT NULL DEFAULT 0,
    state   bytea
) WITH (fillfactor = 70);

-- How far a consumer has come. The epoch rises with each new owner: an older one is a zombie.
CREATE TABLE ledger.consumer_progress (
    consumer  text    NOT NULL,
    partition integer NOT NULL DEFAULT 0,
    epoch     bigint  NOT NULL DEFAULT 0,
    position  bigint  NOT NULL DEFAULT 0,
    PRIMARY KEY (consumer, partition)
) WITH (fillfactor = 50);

-- Requests that could not be decided (with an error), and those of the same customer behind them.
CREATE TABLE ledger.parked_requests (
    position bigint NOT NULL PRIMARY KEY,
    customer text COLLATE "C" NOT NULL,
    error    text
);
CREATE INDEX parked_requests_customer ON ledger.parked_requests (customer, position);

GRANT SELECT, INSERT, UPDATE, DELETE ON ledger.guards TO guishu_app;
GRANT SELECT, INSERT, UPDATE ON ledger.consumer_progress TO guishu_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON ledger.parked_requests TO guishu_app;
