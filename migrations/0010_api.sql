-- What the HTTP interface keeps beside the log: who may call it, and who has seen personal data.

CREATE SCHEMA api;
GRANT USAGE ON SCHEMA api TO guishu_app;

-- Bearer tokens (gs_<token>_<secret>). The secret has 32 random bytes, so that its bare SHA-256
-- gives nothing away. Tokens are revoked and not deleted: who could act when stays known.
CREATE TABLE api.tokens (
    token        text COLLATE "C" NOT NULL PRIMARY KEY,
    digest       bytea NOT NULL CHECK (octet_length(digest) = 32),
    -- A person of the organisation, or an integration, which is no person.
    kind         text NOT NULL CHECK (kind IN ('person', 'integration')),
    principal    text COLLATE "C" NOT NULL,
    -- What of the person's roles this token has; of an integration its roles.
    roles        text[] NOT NULL,
    -- Only what lies in one of these or below; NULL: no bound.
    territories  text[],
    -- Permissions that no role of an integration has by itself, such as approving.
    grants       text[] NOT NULL DEFAULT '{}',
    made         timestamptz NOT NULL DEFAULT clock_timestamp(),
    made_by      text NOT NULL,
    expires      timestamptz NOT NULL,
    revoked      timestamptz,
    last_used    timestamptz,
    -- Making a token again under the same key of the caller gives the first one, without its secret.
    request_id     text COLLATE "C",
    request_digest bytea,
    UNIQUE (made_by, request_id)
);
CREATE INDEX tokens_principal ON api.tokens (principal);
GRANT SELECT, INSERT ON api.tokens TO guishu_app;
GRANT UPDATE (revoked, last_used) ON api.tokens TO guishu_app;

-- Who has seen which personal data, written before they are sent. Nobody changes or drops a row.
CREATE TABLE api.personal_access (
    number     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    caller     text COLLATE "C" NOT NULL,
    person     text COLLATE "C",
    route      text NOT NULL,
    -- The customers or persons whose data they are, and which fields.
    subjects   text[] NOT NULL,
    fields     text[] NOT NULL
);
CREATE INDEX personal_access_at ON api.personal_access (at);
GRANT SELECT, INSERT ON api.personal_access TO guishu_app;
