-- SPDX-License-Identifier: MIT
-- The hub: agents in machines, their tasks, what waits for them, machines. Times are milliseconds
-- since 1970, UTC; booleans are 0 or 1; lists and objects are JSON.

CREATE TABLE hub_agents (
    id TEXT NOT NULL PRIMARY KEY,
    metadata TEXT NOT NULL,                      -- an object
    position INTEGER NOT NULL,                   -- their order; kept when it registers again
    registered_at INTEGER NOT NULL,              -- of the first time
    token_hash TEXT NOT NULL,                    -- SHA-256 of the token, hex; '' none
    token_expires INTEGER NOT NULL,
    machine INTEGER NOT NULL DEFAULT 0,          -- made for a machine
    draining INTEGER NOT NULL DEFAULT 0,         -- new tasks are held back
    last_seen INTEGER NOT NULL DEFAULT 0,        -- these are written now and then
    last_health INTEGER NOT NULL DEFAULT 0,
    health TEXT,                                 -- an object
    stats TEXT                                   -- an object
);

-- position: hub_order(), microseconds since 1970 made distinct: the order of acceptance.
CREATE TABLE hub_tasks (
    position INTEGER NOT NULL PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    agent_id TEXT NOT NULL,
    state TEXT NOT NULL,                         -- of task.h
    sender TEXT NOT NULL,
    type TEXT,                                   -- of the body, where it has one that is a text
    body TEXT NOT NULL,                          -- as posted
    response TEXT,                               -- the agent's payload
    reason TEXT,                                 -- why it ended without one
    timeout_ms INTEGER NOT NULL,
    retry INTEGER NOT NULL DEFAULT 0,            -- may be run again when its outcome is unknown
    attempts INTEGER NOT NULL DEFAULT 0,         -- times handed to the agent
    cancel TEXT,                                 -- why it was asked to end
    owner TEXT,                                  -- the executor that sent it and watches over it
    created_at INTEGER NOT NULL,
    sent_at INTEGER,
    started_at INTEGER,
    completed_at INTEGER
);
CREATE INDEX hub_tasks_agent ON hub_tasks (agent_id, position);
CREATE INDEX hub_tasks_open ON hub_tasks (agent_id, position) WHERE completed_at IS NULL;

CREATE TABLE hub_messages (                      -- waiting for an agent that is away
    position INTEGER NOT NULL PRIMARY KEY,
    agent_id TEXT NOT NULL,
    bytes INTEGER NOT NULL,                      -- of the message
    message TEXT NOT NULL,
    created_at INTEGER NOT NULL
);
CREATE INDEX hub_messages_agent ON hub_messages (agent_id, position);

CREATE TABLE hub_dead (
    position INTEGER NOT NULL PRIMARY KEY,
    message TEXT NOT NULL,
    error TEXT NOT NULL,
    created_at INTEGER NOT NULL
);

CREATE TABLE hub_machines (
    name TEXT NOT NULL PRIMARY KEY,
    driver TEXT NOT NULL,
    instance TEXT NOT NULL,                      -- the daemon's state directory that has it
    spec TEXT NOT NULL,                          -- an object: cpus, memory, disk, image, allow, ...
    state TEXT NOT NULL,                         -- of fleet.h
    reason TEXT,                                 -- of a state that is not well
    wanted TEXT NOT NULL,                        -- running or stopped: what to come back to
    operation TEXT,                              -- the workflow that works on it
    progress TEXT,
    deadline INTEGER NOT NULL DEFAULT 0,         -- of a transient state
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
);
