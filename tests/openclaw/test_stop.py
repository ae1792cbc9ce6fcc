# SPDX-License-Identifier: MIT
"""The last test of a gateway: it stops in order, and the client is told."""


def test_an_orderly_stop_is_announced_and_the_client_tries_on(gateway, make_tool):
    tool = make_tool()
    tool("wait")
    before = len(tool.lines)
    gateway.terminate()
    assert tool.event("shutdown", after=before)["reason"]
    tool.state("reconnecting", before)
    assert tool("status")["attempts"] >= 1 or tool("status")["last_error"]
