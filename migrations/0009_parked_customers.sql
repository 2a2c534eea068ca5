-- A customer's guard says that it waits for a parked request, so that a hand-over leaves it alone.
-- Whoever waits by now learns it here, as guishu rebuild --guards would make it from the log.

-- An enforcer of before would not keep it: whoever is at work is fenced, and must be a newer one.
UPDATE ledger.consumer_progress SET epoch = epoch + 1 WHERE consumer = 'enforcer';

UPDATE ledger.guards AS g
SET state = convert_to(jsonb_set(
    convert_from(g.state, 'UTF8')::jsonb, '{parked}', to_jsonb(p.position))::text, 'UTF8')
FROM (
    SELECT customer, max(position) AS position FROM ledger.parked_requests
    WHERE error IS NOT NULL GROUP BY customer
) AS p
WHERE g.key = 'customer' || E'\x1f' || p.customer
  AND g.state IS NOT NULL AND convert_from(g.state, 'UTF8')::jsonb ->> 'status' = 'admitted';
