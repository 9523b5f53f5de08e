-- +goose Up

-- What nodes had over time: issues, serving certificates and versions of Larder.
CREATE TABLE history (
    node_id TEXT NOT NULL,
    kind    TEXT NOT NULL,   -- issue, certificate or version
    name    TEXT NOT NULL,   -- what tells it from others of its kind
    began   BIGINT NOT NULL,
    ended   BIGINT NOT NULL DEFAULT 0, -- 0: it is so now
    detail  TEXT NOT NULL,   -- JSON
    PRIMARY KEY (node_id, kind, name, began)
);
CREATE INDEX history_open ON history (kind, ended);

-- +goose Down
SELECT 1;
