-- A place for the read models that a rebuild fills beside the live ones, and for those that verify
-- fills to compare. The tables themselves are made by the service, which also swaps them.

CREATE SCHEMA projections_fresh;
CREATE SCHEMA projections_check;
GRANT USAGE, CREATE ON SCHEMA projections_fresh, projections_check TO guishu_app;
