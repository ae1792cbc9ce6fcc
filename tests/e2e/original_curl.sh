#!/usr/bin/env bash
# The nine steps of the original VPS integration's curl script, in its order and its form: every
# answer goes through jq and the first failing command ends it. Usage: original_curl.sh [base URL]
set -euo pipefail

BASE_URL="${1:-http://localhost:18789}"
AUTH_TOKEN="${GATEWAY_TOKEN:-}"

api() {
  curl -sS -X "$1" "$BASE_URL$2" -H "Content-Type: application/json" \
    -H "Authorization: Bearer $AUTH_TOKEN" ${3:+-d "$3"}
}

echo "1. register pm-agent and sonnet-agent"
api POST /api/vps/register '{
  "name": "pm-agent", "host": "192.168.1.100", "port": 5000, "protocol": "http",
  "auth_token": "token-1", "timeout_seconds": 30, "max_retries": 2,
  "fallback_agents": ["sonnet-agent"]
}' | jq '.'
api POST /api/vps/register '{
  "name": "sonnet-agent", "host": "192.168.1.101", "port": 5001, "protocol": "http",
  "timeout_seconds": 30, "max_retries": 1
}' | jq '.'

echo "2. list agents"
api GET /api/vps/agents | jq '.'

echo "3. overall health"
api GET /api/vps/health | jq '.'

echo "4. call an agent with a session"
api POST /api/vps/call '{
  "agent_name": "pm-agent", "prompt": "What is the status of the project?",
  "session_id": "test-session-001", "user_id": "user-123",
  "metadata": {"project": "openclaw", "priority": "high"}
}' | jq '.'

echo "5. health of one agent"
api GET /api/vps/health/pm-agent | jq '.'

echo "6. the session"
api GET /api/vps/sessions/test-session-001 | jq '.'

echo "7. call an unknown agent"
api POST /api/vps/call '{"agent_name": "nonexistent-agent", "prompt": "Hello"}' | jq '.'

echo "8. status"
api GET /api/vps/status | jq '.'

echo "9. clean up sessions"
api POST '/api/vps/sessions/cleanup?max_age_hours=24' | jq '.'

echo "all tests completed"
