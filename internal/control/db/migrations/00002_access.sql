-- +goose Up

-- Bearer tokens; the id is the client id of OAuth as well. Only the SHA-256 of a
-- secret is kept: it has 256 random bits.
CREATE TABLE tokens (
    id        TEXT PRIMARY KEY, -- GUID
    name      TEXT NOT NULL,
    hash      BYTEA NOT NULL UNIQUE,
    role      TEXT NOT NULL,
    scopes    TEXT NOT NULL,    -- JSON array
    created   BIGINT NOT NULL,
    by_whom   TEXT NOT NULL,
    expires   BIGINT NOT NULL DEFAULT 0,
    last_used BIGINT NOT NULL DEFAULT 0,
    revoked   BIGINT NOT NULL DEFAULT 0
);

-- Access tokens that clients got for their secret.
CREATE TABLE access_tokens (
    hash    BYTEA PRIMARY KEY,
    token   TEXT NOT NULL REFERENCES tokens (id) ON DELETE CASCADE,
    expires BIGINT NOT NULL
);
CREATE INDEX access_tokens_by_expiry ON access_tokens (expires);

-- People. Names are compared without case: key is the lower-case one.
CREATE TABLE users (
    id         TEXT PRIMARY KEY, -- GUID
    key        TEXT NOT NULL UNIQUE,
    name       TEXT NOT NULL,
    role       TEXT NOT NULL,
    scopes     TEXT NOT NULL,    -- JSON array
    password   TEXT NOT NULL DEFAULT '', -- PHC string; '' for accounts of a provider
    subject    TEXT NOT NULL DEFAULT '', -- issuer and subject of OpenID Connect
    totp       BYTEA,            -- sealed; used once it is confirmed
    totp_on    BOOLEAN NOT NULL DEFAULT FALSE,
    totp_step  BIGINT NOT NULL DEFAULT 0, -- of the code that was taken last
    recovery   TEXT NOT NULL DEFAULT '[]', -- SHA-256 of codes that are left
    disabled   BOOLEAN NOT NULL DEFAULT FALSE,
    created    BIGINT NOT NULL,
    last_login BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX users_by_subject ON users (subject);

-- What keeps guessing slow, by user and by address.
CREATE TABLE login_failures (
    subject TEXT PRIMARY KEY, -- "user x" or "from 192.0.2.1"
    count   BIGINT NOT NULL,
    until   BIGINT NOT NULL,  -- no try before
    last    BIGINT NOT NULL
);

CREATE TABLE sessions (
    hash    BYTEA PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created BIGINT NOT NULL,
    used    BIGINT NOT NULL,
    remote  TEXT NOT NULL
);
CREATE INDEX sessions_by_user ON sessions (user_id);

-- Secrets that are good once, such as the link of the first start.
CREATE TABLE once (
    purpose TEXT PRIMARY KEY,
    hash    BYTEA NOT NULL,
    expires BIGINT NOT NULL
);

-- What was done, by whom. Nothing here is ever changed or removed: each row's
-- hash covers the one before.
CREATE TABLE audit (
    seq       BIGINT PRIMARY KEY,
    at        BIGINT NOT NULL,
    actor     TEXT NOT NULL,
    actor_id  TEXT NOT NULL,
    kind      TEXT NOT NULL,
    remote    TEXT NOT NULL,
    action    TEXT NOT NULL,
    target    TEXT NOT NULL,
    outcome   TEXT NOT NULL,
    before    TEXT NOT NULL,
    after     TEXT NOT NULL,
    hash      TEXT NOT NULL
);
CREATE INDEX audit_by_target ON audit (target, seq);
INSERT INTO counters (name, value) VALUES ('audit', 0);

-- +goose Down
SELECT 1;
