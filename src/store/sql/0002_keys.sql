-- API keys of all listeners. The key itself is never stored: hash is the SHA-256 of it, in hex.
CREATE TABLE api_keys (
    name TEXT NOT NULL PRIMARY KEY,
    hash TEXT NOT NULL UNIQUE,
    scopes INTEGER NOT NULL,     -- bits of enum http_need
    created_at INTEGER NOT NULL, -- microseconds since 1970, UTC
    expires_at INTEGER           -- the same, or NULL for never
);
