-- Making a token again under the same key of the caller gives the first one, without its secret.

ALTER TABLE api.tokens
    ADD COLUMN request_id text COLLATE "C",
    ADD COLUMN request_digest bytea;
CREATE UNIQUE INDEX tokens_request ON api.tokens (made_by, request_id);
