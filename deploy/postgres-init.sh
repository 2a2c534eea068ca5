#!/bin/sh
# Run once by the image of PostgreSQL, in an empty data folder: the database, who owns it and
# migrates it, and as whom the service logs in, who owns nothing.
set -eu
psql --quiet --set=ON_ERROR_STOP=1 --username="${POSTGRES_USER:-postgres}" --dbname=postgres \
    --set=owner="$GUISHU_OWNER_PASSWORD" --set=service="$GUISHU_SERVICE_PASSWORD" <<'SQL'
CREATE ROLE guishu_app NOLOGIN;
-- The same as in migration 0001, which finds the role in place.
ALTER ROLE guishu_app SET idle_in_transaction_session_timeout = '10s';
CREATE ROLE guishu_owner LOGIN PASSWORD :'owner';
CREATE ROLE guishu_service LOGIN PASSWORD :'service';
GRANT guishu_app TO guishu_owner, guishu_service;
CREATE DATABASE guishu OWNER guishu_owner;
REVOKE ALL ON DATABASE guishu FROM PUBLIC;
-- The service acts as guishu_app, and compares in temporary tables.
GRANT CONNECT, TEMPORARY ON DATABASE guishu TO guishu_app;
SQL
