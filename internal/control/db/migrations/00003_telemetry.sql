-- +goose Up

-- What nodes did, by node, content type and span: 60, 900 or 86400 seconds,
-- beginning at bucket. A minute costs a row per node and content type, about
-- 150 bytes, and is kept for two days; quarters of an hour for weeks, days for
-- years.
CREATE TABLE usage (
    span     BIGINT NOT NULL,
    bucket   BIGINT NOT NULL, -- seconds since 1970
    customer TEXT NOT NULL,
    node_id  TEXT NOT NULL,
    kind     TEXT NOT NULL,   -- content type
    requests BIGINT NOT NULL,
    hits     BIGINT NOT NULL,
    hit      BIGINT NOT NULL, -- bytes
    miss     BIGINT NOT NULL, -- bytes
    fetched  BIGINT NOT NULL, -- bytes
    PRIMARY KEY (span, node_id, bucket, kind)
);
CREATE INDEX usage_by_age ON usage (span, bucket);

-- The same summed up over a customer's nodes and content types, so that a chart
-- of a fleet does not read every node's rows. nodes counts reports, to tell gaps
-- from quiet.
CREATE TABLE usage_total (
    span     BIGINT NOT NULL,
    bucket   BIGINT NOT NULL,
    customer TEXT NOT NULL,
    minutes  BIGINT NOT NULL, -- of nodes, that were reported
    requests BIGINT NOT NULL,
    hits     BIGINT NOT NULL,
    hit      BIGINT NOT NULL,
    miss     BIGINT NOT NULL,
    fetched  BIGINT NOT NULL,
    PRIMARY KEY (span, customer, bucket)
);
CREATE INDEX usage_total_by_age ON usage_total (span, bucket);

-- Minutes that nodes reported, to tell gaps from quiet at a node, a row per
-- node and quarter of an hour.
CREATE TABLE usage_minutes (
    bucket  BIGINT NOT NULL,
    node_id TEXT NOT NULL,
    minutes BIGINT NOT NULL,
    PRIMARY KEY (node_id, bucket)
);

-- How requests ended, by node and quarter of an hour.
CREATE TABLE outcomes (
    bucket   BIGINT NOT NULL,
    customer TEXT NOT NULL,
    node_id  TEXT NOT NULL,
    kind     TEXT NOT NULL,
    outcome  TEXT NOT NULL,
    status   TEXT NOT NULL,
    requests BIGINT NOT NULL,
    PRIMARY KEY (node_id, bucket, kind, outcome, status)
);
CREATE INDEX outcomes_by_age ON outcomes (bucket);

-- How origins did, by node and quarter of an hour.
CREATE TABLE origins (
    bucket   BIGINT NOT NULL,
    customer TEXT NOT NULL,
    node_id  TEXT NOT NULL,
    host     TEXT NOT NULL,
    ok       BIGINT NOT NULL,
    failures BIGINT NOT NULL,
    PRIMARY KEY (node_id, bucket, host)
);
CREATE INDEX origins_by_age ON origins (bucket);

-- The processes that delivered for a node, to tell a restart from a copy.
CREATE TABLE instances (
    node_id  TEXT NOT NULL,
    line     BIGINT NOT NULL,
    instance TEXT NOT NULL,
    first    BIGINT NOT NULL,
    last     BIGINT NOT NULL,
    PRIMARY KEY (node_id, instance)
);

-- +goose Down
SELECT 1;
