-- The lives of agents and what is said to them. Times are milliseconds since 1970, UTC; booleans are
-- 0 or 1; lists and objects are JSON. What a column may be is said by =, because SQLite makes a table
-- of its own for a longer IN list, and looks into it, each time that a row is written.

CREATE TABLE agent_swarm_instances (
    id TEXT NOT NULL PRIMARY KEY,                -- a UUID
    name TEXT NOT NULL,
    persona TEXT,
    model TEXT NOT NULL,
    user_id TEXT NOT NULL,                       -- a UUID
    workspace_id TEXT,
    current_conversation_id TEXT,
    status TEXT NOT NULL DEFAULT 'provisioning'
        CHECK (status = 'provisioning' OR status = 'running' OR status = 'paused' OR status = 'stopped'
            OR status = 'failed'),
    generation INTEGER NOT NULL DEFAULT 0,       -- grows when a failed agent is provisioned again
    version INTEGER NOT NULL DEFAULT 0,          -- grows with every change: for compare-and-set
    openclaw_session_key TEXT UNIQUE,
    openclaw_agent_id TEXT,
    heartbeat_enabled INTEGER NOT NULL DEFAULT 0,
    heartbeat_interval TEXT
        CHECK (heartbeat_interval = '30s' OR heartbeat_interval = '1m' OR heartbeat_interval = '5m'
            OR heartbeat_interval = '15m' OR heartbeat_interval = '30m'
            OR heartbeat_interval = '1h' OR heartbeat_interval = '2h'),
    heartbeat_checklist TEXT,                    -- an array of texts
    last_heartbeat_at INTEGER,                   -- written on change and now and then, see beat.c
    next_heartbeat_at INTEGER,                   -- a slot from which the others are counted
    configuration TEXT,                          -- an object
    error_message TEXT,
    error_count INTEGER NOT NULL DEFAULT 0,
    last_error_at INTEGER,
    workflow_uuid TEXT,                          -- of the last operation
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    provisioned_at INTEGER,
    paused_at INTEGER,
    stopped_at INTEGER
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
    status TEXT NOT NULL DEFAULT 'pending'
        CHECK (status = 'pending' OR status = 'running' OR status = 'completed' OR status = 'failed'
            OR status = 'skipped'),
    checklist_items TEXT,
    checklist_results TEXT,
    started_at INTEGER,
    completed_at INTEGER,
    duration_seconds REAL,
    error_message TEXT,
    retry_count INTEGER NOT NULL DEFAULT 0,
    workflow_uuid TEXT UNIQUE,
    workflow_metadata TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
);
CREATE INDEX agent_heartbeat_executions_agent ON agent_heartbeat_executions (agent_id, created_at);
CREATE INDEX agent_heartbeat_executions_status ON agent_heartbeat_executions (status);

CREATE TABLE agent_state_checkpoints (
    id TEXT NOT NULL PRIMARY KEY,
    agent_id TEXT NOT NULL REFERENCES agent_swarm_instances (id) ON DELETE CASCADE,
    state TEXT NOT NULL,
    workflow_uuid TEXT,
    created_at INTEGER NOT NULL
);
CREATE INDEX agent_state_checkpoints_agent ON agent_state_checkpoints (agent_id, created_at);

-- What Idempotency-Key headers have answered: a key means one request of one body.
CREATE TABLE agent_idempotency (
    key TEXT NOT NULL PRIMARY KEY,
    digest TEXT NOT NULL,                        -- of method, path and body
    agent_id TEXT NOT NULL,
    workflow_uuid TEXT NOT NULL,
    created_at INTEGER NOT NULL
);
CREATE INDEX agent_idempotency_created ON agent_idempotency (created_at);

-- Mailboxes and outboxes in one: a message is due to whoever consumes its session.
CREATE TABLE agent_messages (
    position INTEGER NOT NULL PRIMARY KEY,       -- the order, over all sessions
    workflow_uuid TEXT NOT NULL UNIQUE,          -- "msg:...": says the same twice, is the same message
    message_id TEXT NOT NULL,                    -- as the sender and the consumer know it
    sender TEXT NOT NULL,
    session TEXT NOT NULL,                       -- to whom
    content TEXT NOT NULL,
    metadata TEXT,                               -- JSON
    status TEXT NOT NULL DEFAULT 'pending'
        CHECK (status = 'pending' OR status = 'acknowledged' OR status = 'failed' OR status = 'expired'
            OR status = 'dropped'),
    attempts INTEGER NOT NULL DEFAULT 0,         -- deliveries that nobody acknowledged
    response TEXT,                               -- what the consumer replied
    error TEXT,                                  -- why it is dead
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    ended_at INTEGER                             -- acknowledged, failed, expired or dropped
);
CREATE INDEX agent_messages_due ON agent_messages (session, position) WHERE status = 'pending';
CREATE INDEX agent_messages_id ON agent_messages (message_id) WHERE message_id <> workflow_uuid;

-- Work on issues that chat commands have begun.
CREATE TABLE swarm_trackers (
    issue_number INTEGER NOT NULL PRIMARY KEY,
    repository TEXT NOT NULL,
    agent_id TEXT,
    state TEXT NOT NULL
        CHECK (state = 'parsing_command' OR state = 'spawning_agent' OR state = 'agent_ready'
            OR state = 'work_in_progress' OR state = 'pr_created' OR state = 'tests_running'
            OR state = 'completed' OR state = 'failed' OR state = 'stopped'),
    pr_url TEXT,
    error TEXT,
    requested_by TEXT,                           -- session that replies go to
    workflow_uuid TEXT,
    started_at INTEGER NOT NULL,
    completed_at INTEGER,
    updated_at INTEGER NOT NULL
);
CREATE INDEX swarm_trackers_state ON swarm_trackers (state);
