-- The lives of agents and what is said to them. Times are milliseconds since 1970, UTC; booleans are
-- 0 or 1; lists and objects are JSON.

-- As on SQLite, but that what is chosen from a list is an enum, and that ids are given out by a
-- sequence, because several programs write. A text becomes a member of an enum when it is assigned,
-- so that both databases are written by the same statements.
CREATE TYPE agent_swarm_status AS ENUM ('provisioning', 'running', 'paused', 'stopped', 'failed');
CREATE TYPE heartbeat_interval AS ENUM ('30s', '1m', '5m', '15m', '30m', '1h', '2h');
CREATE TYPE heartbeat_execution_status AS ENUM ('pending', 'running', 'completed', 'failed', 'skipped');
CREATE CAST (text AS agent_swarm_status) WITH INOUT AS ASSIGNMENT;
CREATE CAST (text AS heartbeat_interval) WITH INOUT AS ASSIGNMENT;
CREATE CAST (text AS heartbeat_execution_status) WITH INOUT AS ASSIGNMENT;
CREATE SEQUENCE agent_messages_batch; -- position = number * 4096 + place in the batch

CREATE TABLE agent_swarm_instances (
    id TEXT NOT NULL PRIMARY KEY,                -- a UUID
    name TEXT NOT NULL,
    persona TEXT,
    model TEXT NOT NULL,
    user_id TEXT NOT NULL,                       -- a UUID
    workspace_id TEXT,
    current_conversation_id TEXT,
    status agent_swarm_status NOT NULL DEFAULT 'provisioning',
    generation BIGINT NOT NULL DEFAULT 0,       -- grows when a failed agent is provisioned again
    version BIGINT NOT NULL DEFAULT 0,          -- grows with every change: for compare-and-set
    openclaw_session_key TEXT UNIQUE,
    openclaw_agent_id TEXT,
    heartbeat_enabled BIGINT NOT NULL DEFAULT 0,
    heartbeat_interval heartbeat_interval,
    heartbeat_checklist TEXT,                    -- an array of texts
    last_heartbeat_at BIGINT,                   -- written on change and now and then, see beat.c
    next_heartbeat_at BIGINT,                   -- a slot from which the others are counted
    configuration TEXT,                          -- an object
    error_message TEXT,
    error_count BIGINT NOT NULL DEFAULT 0,
    last_error_at BIGINT,
    workflow_uuid TEXT,                          -- of the last operation
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    provisioned_at BIGINT,
    paused_at BIGINT,
    stopped_at BIGINT
);
CREATE INDEX agent_swarm_instances_user ON agent_swarm_instances (user_id, created_at);
CREATE INDEX agent_swarm_instances_created ON agent_swarm_instances (created_at, id);
CREATE INDEX agent_swarm_instances_updated ON agent_swarm_instances (updated_at, id);
CREATE INDEX agent_swarm_instances_status ON agent_swarm_instances (status);
CREATE INDEX agent_swarm_instances_name ON agent_swarm_instances (name);
CREATE INDEX agent_swarm_instances_agent ON agent_swarm_instances (openclaw_agent_id);

CREATE TABLE agent_heartbeat_executions (
    id TEXT NOT NULL PRIMARY KEY,
    agent_id TEXT NOT NULL REFERENCES agent_swarm_instances (id) ON DELETE CASCADE,
    status heartbeat_execution_status NOT NULL DEFAULT 'pending',
    checklist_items TEXT,
    checklist_results TEXT,
    started_at BIGINT,
    completed_at BIGINT,
    duration_seconds DOUBLE PRECISION,
    error_message TEXT,
    retry_count BIGINT NOT NULL DEFAULT 0,
    workflow_uuid TEXT UNIQUE,
    workflow_metadata TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX agent_heartbeat_executions_agent ON agent_heartbeat_executions (agent_id, created_at);
CREATE INDEX agent_heartbeat_executions_status ON agent_heartbeat_executions (status);

CREATE TABLE agent_state_checkpoints (
    id TEXT NOT NULL PRIMARY KEY,
    agent_id TEXT NOT NULL REFERENCES agent_swarm_instances (id) ON DELETE CASCADE,
    state TEXT NOT NULL,
    workflow_uuid TEXT,
    created_at BIGINT NOT NULL
);
CREATE INDEX agent_state_checkpoints_agent ON agent_state_checkpoints (agent_id, created_at);

-- What Idempotency-Key headers have answered: a key means one request of one body.
CREATE TABLE agent_idempotency (
    key TEXT NOT NULL PRIMARY KEY,
    digest TEXT NOT NULL,                        -- of method, path and body
    agent_id TEXT NOT NULL,
    workflow_uuid TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX agent_idempotency_created ON agent_idempotency (created_at);

-- Mailboxes and outboxes in one: a message is due to whoever consumes its session.
CREATE TABLE agent_messages (
    position BIGINT NOT NULL PRIMARY KEY,       -- the order, over all sessions
    workflow_uuid TEXT NOT NULL UNIQUE,          -- "msg:...": says the same twice, is the same message
    message_id TEXT NOT NULL,                    -- as the sender and the consumer know it
    sender TEXT NOT NULL,
    session TEXT NOT NULL,                       -- to whom
    content TEXT NOT NULL,
    metadata TEXT,                               -- JSON
    status TEXT NOT NULL DEFAULT 'pending'
        CHECK (status IN ('pending', 'acknowledged', 'failed', 'expired', 'dropped')),
    attempts BIGINT NOT NULL DEFAULT 0,         -- deliveries that nobody acknowledged
    response TEXT,                               -- what the consumer replied
    error TEXT,                                  -- why it is dead
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    ended_at BIGINT                             -- acknowledged, failed, expired or dropped
);
CREATE INDEX agent_messages_due ON agent_messages (session, position) WHERE status = 'pending';
CREATE INDEX agent_messages_id ON agent_messages (message_id) WHERE message_id <> workflow_uuid;

-- Work on issues that chat commands have begun.
CREATE TABLE swarm_trackers (
    issue_number BIGINT NOT NULL PRIMARY KEY,
    repository TEXT NOT NULL,
    agent_id TEXT,
    state TEXT NOT NULL CHECK (state IN ('parsing_command', 'spawning_agent', 'agent_ready', 'work_in_progress',
        'pr_created', 'tests_running', 'completed', 'failed', 'stopped')),
    pr_url TEXT,
    error TEXT,
    requested_by TEXT,                           -- session that replies go to
    workflow_uuid TEXT,
    started_at BIGINT NOT NULL,
    completed_at BIGINT,
    updated_at BIGINT NOT NULL
);
CREATE INDEX swarm_trackers_state ON swarm_trackers (state);

-- The names under which the original's gateway looked for the same rows.
CREATE VIEW dbos_agents AS
    SELECT id AS agent_id, name, persona, model, user_id, openclaw_session_key AS session_key,
        heartbeat_enabled <> 0 AS heartbeat_enabled, heartbeat_interval::text AS heartbeat_interval,
        heartbeat_checklist::json AS heartbeat_checklist, configuration::json AS configuration, workflow_uuid,
        status::text AS status, openclaw_agent_id, error_message, error_count,
        to_timestamp(last_error_at / 1000.0) AS last_error_at,
        to_timestamp(last_heartbeat_at / 1000.0) AS last_heartbeat_at,
        to_timestamp(next_heartbeat_at / 1000.0) AS next_heartbeat_at,
        to_timestamp(provisioned_at / 1000.0) AS provisioned_at, to_timestamp(paused_at / 1000.0) AS paused_at,
        to_timestamp(created_at / 1000.0) AS created_at, to_timestamp(updated_at / 1000.0) AS updated_at
    FROM agent_swarm_instances;
CREATE VIEW dbos_heartbeat_executions AS
    SELECT id AS execution_id, agent_id, status::text AS status, checklist_items::json AS checklist_items,
        checklist_results::json AS result, error_message, workflow_uuid,
        to_timestamp(started_at / 1000.0) AS started_at, to_timestamp(completed_at / 1000.0) AS completed_at,
        duration_seconds, to_timestamp(created_at / 1000.0) AS created_at,
        to_timestamp(updated_at / 1000.0) AS updated_at
    FROM agent_heartbeat_executions;
CREATE VIEW dbos_agent_checkpoints AS
    SELECT agent_id, state::json AS state, workflow_uuid, to_timestamp(created_at / 1000.0) AS created_at
    FROM agent_state_checkpoints;
