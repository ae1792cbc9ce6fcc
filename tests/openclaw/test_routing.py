# SPDX-License-Identifier: MIT
"""What chela swarm routing finds where a real gateway with a Telegram and no WhatsApp is."""

import json

import chelad
from gateway import TOKEN
from wait import eventually


def test_a_real_gateway_answers_what_the_monitor_asks(gateway, daemon):
    probe = lambda: daemon.http.get("/api/v1/swarm/openclaw").json()
    answer = eventually(lambda: (lambda p: p if p["connection"]["connected"] else None)(probe()), 60)
    assert answer["error"] is None, answer["error"]
    assert answer["connection"]["version"] == gateway.release
    assert answer["channels"]["channels"]["telegram"]["configured"] is True
    assert isinstance(answer["sessions"]["sessions"], list)
    assert isinstance(answer["status"], dict)
    assert TOKEN not in json.dumps(answer)


def test_routing_tells_what_of_whatsapp_is_missing(gateway, daemon):
    eventually(lambda: daemon.http.get("/api/v1/openclaw/status").json()["connected"], 60)
    done = chelad.run("chela", "--state", daemon.state, "swarm", "routing", "--json", "--config", str(gateway.config))
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["overall_status"]) == (1, "FAIL")
    assert answer["gateway"]["running"] and answer["gateway"]["listening"]
    assert answer["whatsapp"]["connected"] is False
    assert json.loads(answer["whatsapp"]["raw_output"])["channels"]["telegram"]["configured"] is True
    assert answer["routing"]["configured"] is False and "error" not in answer["routing"]
