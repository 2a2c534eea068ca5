-- Who holds what at which customer, for a hand-over finds all of it here without a read model: who
-- owns the customer, has asked for what awaits approval there, would receive it, or collaborates.
-- It follows from the log like the guards beside it, and is written with them, under the guards of
-- these people's holdings.

-- An enforcer of before would not keep it: whoever is at work is fenced, and must be a newer one.
UPDATE ledger.consumer_progress SET epoch = epoch + 1 WHERE consumer = 'enforcer';

CREATE TABLE ledger.involved (
    person   text COLLATE "C" NOT NULL,
    customer text COLLATE "C" NOT NULL,
    PRIMARY KEY (person, customer)
);

GRANT SELECT, INSERT, UPDATE, DELETE ON ledger.involved TO guishu_app;

-- Of a ledger that there is, from the guards.
INSERT INTO ledger.involved (person, customer)
SELECT DISTINCT found.person, substr(held.key, 10)
FROM (
    SELECT key, convert_from(state, 'UTF8')::jsonb AS state FROM ledger.guards
    WHERE key >= 'customer' || chr(31) AND key < 'customer' || chr(32) AND state IS NOT NULL
) AS held
CROSS JOIN LATERAL (
    SELECT held.state -> 'held' ->> 0 AS person
    UNION ALL SELECT held.state -> 'approval' ->> 'requester'
    UNION ALL SELECT held.state -> 'approval' ->> 'receiver'
    UNION ALL
    SELECT unnest(ARRAY[c ->> 'person', c -> 'approval' ->> 'requester',
                        c -> 'approval' ->> 'receiver'])
    FROM jsonb_array_elements(coalesce(held.state -> 'collaborations', '[]')) AS c
) AS found
WHERE found.person IS NOT NULL;
