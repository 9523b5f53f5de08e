-- +goose Up

-- Since when a root signs, 0 for the first: nodes have an identity of it if theirs
-- was issued later.
ALTER TABLE authorities ADD COLUMN activated BIGINT NOT NULL DEFAULT 0;
