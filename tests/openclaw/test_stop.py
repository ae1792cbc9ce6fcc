# SPDX-License-Identifier: MIT
"""The last test of a gateway: it stops in order, and the client tries on."""


def test_an_orderly_stop_is_a_loss_like_others(gateway, make_tool):
    tool = make_tool()
    tool("wait")
    before = len(tool.lines)
    gateway.terminate()
    tool.state("reconnecting", before)
    told = [line for line in tool.lines[before:] if line.get("event") == "shutdown"]
    assert all(event["payload"]["reason"] for event in told)  # a gateway that is busy may go without a word
