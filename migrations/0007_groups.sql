-- Guards of groups: whose the customers at and below each one are that has others below it, by
-- their parent. The enforcer keeps them from now on; here they are made for what was decided so
-- far, as guishu rebuild --guards would, so that an upgrade takes no further step.

-- An enforcer of before would not keep them: whoever is at work is fenced, and must be a newer one.
UPDATE ledger.consumer_progress SET epoch = epoch + 1 WHERE consumer = 'enforcer';

-- Most customers are in no group. Of the others: what stands above them.
CREATE TEMPORARY TABLE group_links ON COMMIT DROP AS
SELECT split_part(g.key, E'\x1f', 2) AS customer, g.state ->> 'parent' AS parent
FROM (
    SELECT key, convert_from(state, 'UTF8')::jsonb AS state
    FROM ledger.guards
    WHERE key LIKE E'customer\x1f%' AND state IS NOT NULL
      AND position(convert_to('"parent":null', 'UTF8') IN state) = 0
) AS g
WHERE g.state ->> 'status' = 'admitted' AND g.state ->> 'parent' IS NOT NULL;
CREATE INDEX ON pg_temp.group_links (customer);
ANALYZE pg_temp.group_links;

CREATE TEMPORARY TABLE group_owners ON COMMIT DROP AS
WITH RECURSIVE members AS (
    SELECT customer FROM pg_temp.group_links UNION SELECT parent FROM pg_temp.group_links
),
owned AS (
    SELECT m.customer, convert_from(g.state, 'UTF8')::jsonb
        -> 'held' ->> 0 AS owner
    FROM members AS m JOIN ledger.guards AS g ON g.key = 'customer' || E'\x1f' || m.customer
),
counted AS (  -- each counts at itself, and at all above
    SELECT customer AS place, owner FROM owned WHERE owner IS NOT NULL
    UNION ALL
    SELECT l.parent, c.owner FROM counted AS c JOIN pg_temp.group_links AS l ON l.customer = c.place
)
SELECT c.place, c.owner, count(*) AS members FROM counted AS c
WHERE c.place IN (SELECT parent FROM pg_temp.group_links)
GROUP BY c.place, c.owner;

INSERT INTO ledger.guards (key, state)
SELECT 'group' || E'\x1f' || place, convert_to(
    jsonb_build_object('owners', jsonb_object_agg(owner, members))::text,
    'UTF8')
FROM pg_temp.group_owners GROUP BY place;

UPDATE ledger.guards AS g
SET state = convert_to(jsonb_set(
    convert_from(g.state, 'UTF8')::jsonb, '{children}',
    to_jsonb(p.children))::text, 'UTF8')
FROM (SELECT parent, count(*) AS children FROM pg_temp.group_links GROUP BY parent) AS p
WHERE g.key = 'customer' || E'\x1f' || p.parent;
