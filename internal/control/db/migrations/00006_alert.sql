-- +goose Up

-- What needs somebody, from its first to its last moment. Times as in the first
-- migration.
CREATE TABLE alerts (
    id         TEXT PRIMARY KEY, -- GUID
    rule       TEXT NOT NULL,
    subject    TEXT NOT NULL,    -- with rule: what it is about
    state      TEXT NOT NULL,    -- pending, firing or resolved
    severity   BIGINT NOT NULL,  -- 1 info, 2 warning, 3 error
    step       BIGINT NOT NULL,
    title      TEXT NOT NULL,
    reason     TEXT NOT NULL,
    fix        TEXT NOT NULL,
    members    TEXT NOT NULL,    -- JSON array of nodes
    first_seen BIGINT NOT NULL,
    last_seen  BIGINT NOT NULL,
    fired      BIGINT NOT NULL DEFAULT 0,
    ended      BIGINT NOT NULL DEFAULT 0,
    told       BIGINT NOT NULL DEFAULT 0, -- severity that people were told last
    told_step  BIGINT NOT NULL DEFAULT 0,
    silenced   BOOLEAN NOT NULL DEFAULT FALSE
);
CREATE INDEX alerts_by_state ON alerts (state, ended);

-- Rules that are set otherwise than they come.
CREATE TABLE alert_rules (
    name     TEXT PRIMARY KEY,
    settings TEXT NOT NULL -- JSON
);

-- When people are not told: once, or every week (a maintenance window).
CREATE TABLE silences (
    id       TEXT PRIMARY KEY, -- GUID
    settings TEXT NOT NULL,    -- JSON
    scopes   TEXT NOT NULL,    -- JSON array: only alerts within them
    ends     BIGINT NOT NULL   -- 0: never
);

-- Where people are told.
CREATE TABLE alert_channels (
    id      TEXT PRIMARY KEY, -- GUID
    name    TEXT NOT NULL UNIQUE,
    sealed  BYTEA NOT NULL,   -- settings with their secrets, JSON
    error   TEXT NOT NULL DEFAULT '', -- of the last message, '' if it arrived
    tried   BIGINT NOT NULL DEFAULT 0,
    arrived BIGINT NOT NULL DEFAULT 0
);

-- What is on its way to a channel. Written with the alerts it is about, removed
-- when it has arrived.
CREATE TABLE alert_messages (
    id       TEXT PRIMARY KEY, -- GUID
    channel  TEXT NOT NULL REFERENCES alert_channels (id) ON DELETE CASCADE,
    events   TEXT NOT NULL,    -- JSON
    created  BIGINT NOT NULL,
    attempts BIGINT NOT NULL DEFAULT 0,
    due      BIGINT NOT NULL
);
CREATE INDEX alert_messages_due ON alert_messages (due);

-- +goose Down
SELECT 1;
