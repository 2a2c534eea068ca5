-- Where followers written with the eventsourcing library keep the position that they reached.

CREATE TABLE ledger.tracking (
    application_name text   NOT NULL,
    notification_id  bigint NOT NULL,
    PRIMARY KEY (application_name, notification_id)
);
GRANT SELECT, INSERT ON ledger.tracking TO guishu_app;
