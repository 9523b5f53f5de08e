-- +goose Up

-- Every table's points in time are microseconds since 1970 in UTC, 0 for none;
-- documents are JSON.

-- ARM's containers. Names are compared without case: key is the lower-case one.
CREATE TABLE resource_groups (
    subscription TEXT NOT NULL,
    key          TEXT NOT NULL,
    name         TEXT NOT NULL,
    location     TEXT NOT NULL,
    tags         TEXT NOT NULL DEFAULT '{}',
    created      BIGINT NOT NULL,
    PRIMARY KEY (subscription, key)
);

-- Organisations: enterpriseMccCustomers. id is the lower-case ARM id.
CREATE TABLE customers (
    id           TEXT PRIMARY KEY,
    subscription TEXT NOT NULL,
    group_key    TEXT NOT NULL,
    name         TEXT NOT NULL,
    location     TEXT NOT NULL,
    customer_id  TEXT NOT NULL UNIQUE, -- GUID
    tags         TEXT NOT NULL DEFAULT '{}',
    properties   TEXT NOT NULL DEFAULT '{}', -- what a client may write, in ARM's names
    provisioning TEXT NOT NULL,
    version      BIGINT NOT NULL,      -- of the resource, for ETag
    system_data  TEXT NOT NULL DEFAULT '{}',
    primary_key  BYTEA NOT NULL,       -- sealed
    secondary_key BYTEA NOT NULL,      -- sealed
    FOREIGN KEY (subscription, group_key) REFERENCES resource_groups (subscription, key)
);
CREATE INDEX customers_by_group ON customers (subscription, group_key, id);

-- Nodes: enterpriseMccCacheNodes, with what was said by them last.
CREATE TABLE nodes (
    node_id      TEXT PRIMARY KEY,     -- GUID, cacheNodeId
    id           TEXT NOT NULL UNIQUE, -- lower-case ARM id
    customer     TEXT NOT NULL REFERENCES customers (id),
    name         TEXT NOT NULL,
    location     TEXT NOT NULL,
    tags         TEXT NOT NULL DEFAULT '{}',
    properties   TEXT NOT NULL DEFAULT '{}', -- what a client may write, in ARM's names
    settings     TEXT NOT NULL DEFAULT '{}', -- what ARM has no word for
    provisioning TEXT NOT NULL,
    configured   BOOLEAN NOT NULL DEFAULT FALSE, -- drives were given
    version      BIGINT NOT NULL,
    system_data  TEXT NOT NULL DEFAULT '{}',
    created      BIGINT NOT NULL,

    registration_hash    BYTEA,        -- SHA-256 of the key that is still good, if any
    registration_sealed  BYTEA,        -- the key itself, sealed
    registration_expires BIGINT NOT NULL DEFAULT 0,
    registration_used    BIGINT NOT NULL DEFAULT 0,  -- when a key was used last,
    registration_last    BYTEA,                      -- its hash,
    registration_spki    TEXT NOT NULL DEFAULT '',   -- and for which public key: a lost answer may be asked for again

    line         BIGINT NOT NULL DEFAULT 0, -- enrolments; 0: never
    revoked      BIGINT NOT NULL DEFAULT 0, -- when a person revoked the identities of this line
    seq          BIGINT NOT NULL DEFAULT 0, -- highest minute taken of this line
    instance     TEXT NOT NULL DEFAULT '',  -- of the process that delivered last
    copied       BIGINT NOT NULL DEFAULT 0, -- when a second machine was last seen with this identity
    last_seen    BIGINT NOT NULL DEFAULT 0,
    clock_off    BIGINT NOT NULL DEFAULT 0, -- node's clock minus ours, microseconds
    protocol     BIGINT NOT NULL DEFAULT 0,
    state        TEXT NOT NULL DEFAULT '',  -- fleet.State as delivered last

    desired        BIGINT NOT NULL DEFAULT 0, -- the document's number
    document       TEXT NOT NULL DEFAULT '',  -- fleet.Desired
    desired_at     BIGINT NOT NULL DEFAULT 0, -- since when
    revision       BIGINT NOT NULL DEFAULT 0  -- of the last change that replicas must know: desired, line, identities
);
CREATE INDEX nodes_by_customer ON nodes (customer, id);
CREATE INDEX nodes_by_revision ON nodes (revision);

-- The documents nodes had, to say what differs between two of them.
CREATE TABLE documents (
    node_id  TEXT NOT NULL,
    number   BIGINT NOT NULL,
    document TEXT NOT NULL,
    at       BIGINT NOT NULL,
    PRIMARY KEY (node_id, number)
);

-- Organisations' own publisher files: they are part of their nodes' documents.
CREATE TABLE publishers (
    customer TEXT NOT NULL REFERENCES customers (id) ON DELETE CASCADE,
    name     TEXT NOT NULL,
    file     TEXT NOT NULL, -- YAML
    version  BIGINT NOT NULL,
    changed  BIGINT NOT NULL,
    PRIMARY KEY (customer, name)
);

-- Nodes that were deleted, for replicas that still know them.
CREATE TABLE departures (
    node_id  TEXT PRIMARY KEY,
    revision BIGINT NOT NULL,
    at       BIGINT NOT NULL
);
CREATE INDEX departures_by_revision ON departures (revision);

-- What is set for the whole control plane, by name.
CREATE TABLE settings (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

-- The numbers that are given out one by one.
CREATE TABLE counters (
    name  TEXT PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO counters (name, value) VALUES ('revision', 0);

-- The certificates nodes prove themselves by.
CREATE TABLE identities (
    serial     TEXT PRIMARY KEY,     -- hexadecimal
    node_id    TEXT NOT NULL,
    line       BIGINT NOT NULL,
    spki       TEXT NOT NULL,        -- SHA-256 of the public key, hexadecimal
    not_before BIGINT NOT NULL,
    not_after  BIGINT NOT NULL,
    issued     BIGINT NOT NULL,
    used       BIGINT NOT NULL DEFAULT 0, -- when a node first came with it
    revoked    BIGINT NOT NULL DEFAULT 0,
    reason     TEXT NOT NULL DEFAULT '',
    approved   BIGINT NOT NULL DEFAULT 0  -- when a person let it renew although it had expired too long ago
);
CREATE INDEX identities_by_node ON identities (node_id, line, issued);

-- The authorities that sign them. Keys are sealed.
CREATE TABLE authorities (
    id          TEXT PRIMARY KEY, -- SHA-256 of the certificate, hexadecimal
    certificate BYTEA NOT NULL,   -- DER
    sealed_key  BYTEA NOT NULL,
    created     BIGINT NOT NULL,
    active      BOOLEAN NOT NULL, -- it signs; the others are only trusted
    retired     BIGINT NOT NULL DEFAULT 0
);

-- Long-running operations of ARM.
CREATE TABLE operations (
    id           TEXT PRIMARY KEY,
    resource     TEXT NOT NULL,
    kind         TEXT NOT NULL,
    status       TEXT NOT NULL, -- InProgress, Succeeded, Failed, Canceled
    error        TEXT NOT NULL DEFAULT '',
    principal    TEXT NOT NULL DEFAULT '',
    started      BIGINT NOT NULL,
    ended        BIGINT NOT NULL DEFAULT 0,
    claimed      BIGINT NOT NULL DEFAULT 0 -- until when a replica works on it
);
CREATE INDEX operations_open ON operations (status, claimed);

-- What must be done by one replica at a time.
CREATE TABLE leases (
    name    TEXT PRIMARY KEY,
    holder  TEXT NOT NULL,
    expires BIGINT NOT NULL
);

-- +goose Down
SELECT 1;
