-- The bridge: agents and their health, sessions and their messages, results kept for repeated
-- calls. Times are microseconds since 1970, UTC; 0 means never. Booleans are 0 or 1.

CREATE TABLE vps_agents (
    name TEXT NOT NULL PRIMARY KEY,
    position INTEGER NOT NULL,     -- order of first registration
    host TEXT NOT NULL,
    port INTEGER NOT NULL,
    protocol TEXT NOT NULL,        -- http or https
    token TEXT,                    -- sealed with the master key, bound to the name
    timeout_ms INTEGER NOT NULL,
    max_retries INTEGER NOT NULL,  -- attempts in all
    fallbacks TEXT NOT NULL,       -- JSON list of names
    api TEXT NOT NULL,             -- messages, openai or responses
    context TEXT NOT NULL          -- none or session
);

CREATE TABLE vps_health (
    name TEXT NOT NULL PRIMARY KEY,
    status TEXT NOT NULL,
    last_check_us INTEGER NOT NULL,
    last_success_us INTEGER NOT NULL,
    consecutive INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    requests INTEGER NOT NULL,
    network_run INTEGER NOT NULL,  -- newest consecutive failures that were of class network
    success_run INTEGER NOT NULL,  -- newest consecutive successes
    success_ms REAL NOT NULL,
    last_error TEXT NOT NULL
);

CREATE TABLE vps_errors (
    type TEXT NOT NULL PRIMARY KEY,
    count INTEGER NOT NULL,
    first_us INTEGER NOT NULL,
    last_us INTEGER NOT NULL,
    duration_ms REAL NOT NULL,
    retries REAL NOT NULL
);

-- sid names one life of a session: one that is deleted and made again has another. Messages up to
-- done_seq belong to turns that came to an end; later ones of role user are under way or were
-- interrupted.
CREATE TABLE vps_sessions (
    session_id TEXT NOT NULL PRIMARY KEY,
    sid INTEGER NOT NULL UNIQUE,
    user_id TEXT NOT NULL,
    created_us INTEGER NOT NULL,
    active_us INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    done_seq INTEGER NOT NULL,
    metadata TEXT NOT NULL         -- a JSON object
);

-- seq counts from 1 without gaps; old messages may be gone.
CREATE TABLE vps_messages (
    sid INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    ts_us INTEGER NOT NULL,
    role TEXT NOT NULL,
    content TEXT NOT NULL,
    agent TEXT NOT NULL,
    interrupted INTEGER NOT NULL,
    call TEXT,                     -- of a question: Idempotency-Key and hash of its call, or NULL
    PRIMARY KEY (sid, seq)
);

-- key holds the caller's name and the Idempotency-Key; hash is the SHA-256 of the request's body.
CREATE TABLE vps_results (
    key TEXT NOT NULL PRIMARY KEY,
    hash TEXT NOT NULL,
    created_us INTEGER NOT NULL,
    result TEXT NOT NULL
);
CREATE INDEX vps_results_created ON vps_results (created_us);
