-- What the durable engine keeps beside the tables of the schema dbos. Times are milliseconds since
-- 1970, UTC; booleans are 0 or 1.

-- Programs that run workflows. instance is new with each start; one whose lease is over is dead.
CREATE TABLE durable_executors (
    executor_id TEXT NOT NULL PRIMARY KEY,
    instance TEXT NOT NULL,
    app_version TEXT NOT NULL,
    started_ms INTEGER NOT NULL,
    lease_until_ms INTEGER NOT NULL,
    draining INTEGER NOT NULL      -- takes no more work
);

-- Workflows that wait without a stack, and what for.
CREATE TABLE durable_parked (
    workflow_uuid TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,            -- sleep, recv, event, result or stream
    target TEXT,                   -- the workflow that is waited for, or NULL
    topic TEXT,                    -- topic or key, or NULL
    since_ms INTEGER NOT NULL
);
CREATE INDEX durable_parked_target ON durable_parked (target);

-- What a schedule has that its row in workflow_schedules cannot say.
CREATE TABLE durable_schedules (
    schedule_name TEXT NOT NULL PRIMARY KEY,
    misfire TEXT NOT NULL,         -- skip, once or all
    overlap TEXT NOT NULL,         -- allow, skip or replace
    misfire_max INTEGER NOT NULL,  -- of all: the newest so many; 0: the default
    since_ms INTEGER NOT NULL      -- times before this were not missed: it was changed or paused
);

-- The same for a queue.
CREATE TABLE durable_queues (
    name TEXT NOT NULL PRIMARY KEY,
    hold_slot INTEGER NOT NULL     -- does a parked workflow keep its place in the concurrency?
);
