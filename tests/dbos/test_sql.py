"""V14: workflows are started and messages sent by SQL alone, through the functions of the schema."""

import json

import pytest
from clients import variants
from wait import unique

# The clients only read what became of it: the last version before the payload tables, and the latest.
pytestmark = pytest.mark.parametrize("client", variants("4.27.6", "5.3.0", "5.3.0-bounced"), indirect=True)


def test_v14_enqueue_workflow_is_executed(client, id):
    made = client.world.psql(
        "SELECT dbos.enqueue_workflow('mirror', 'plain', ARRAY['{\"a\": 1}'::json, '\"two\"'::json],"
        f" '{{\"k\": [true, null]}}'::json, workflow_id => '{id}', priority => 2)")
    assert made == id
    assert client.result(id) == {"positional": [{"a": 1}, "two"], "named": {"k": [True, None]}}
    row = client.world.row(id)
    assert (row["status"], row["priority"], row["serialization"]) == ("SUCCESS", 2, "portable_json")
    assert json.loads(row["new_inputs"]) == {"positionalArgs": [{"a": 1}, "two"], "namedArgs": {"k": [True, None]}}


def test_v14_a_second_call_with_the_id_is_the_first_workflow(client, id):
    call = f"SELECT dbos.enqueue_workflow('work', 'plain', ARRAY['{{}}'::json], workflow_id => '{id}')"
    assert client.world.psql(call) == id
    assert client.result(id) == [0]
    assert client.world.psql(call) == id
    assert client.result(id) == [0] and client.world.runs(id) == {0: 1}


def test_v14_a_random_id_and_a_method(client):
    id = client.world.psql("SELECT dbos.enqueue_workflow('echo', 'plain', ARRAY['5'::json], class_name => 'Greeter')")
    assert len(id) == 36 and client.result(id) == 5


def test_v14_a_dedup_collision_says_whose(client, id):
    call = ("SELECT dbos.enqueue_workflow('work', 'plain', ARRAY['{\"gate\": \"%s\"}'::json], workflow_id => '%s',"
            " deduplication_id => '%s')")
    client.world.psql(call % (id, id, id))
    with pytest.raises(AssertionError, match="(?s)23505.*DBOS queue duplicated"):
        client.world.psql(call % (id, f"{id}-2", id))
    client.world.open_gate(id)
    assert client.result(id) == [0]


@pytest.mark.parametrize("arguments", [
    "'', 'plain'", "'echo', ''", "NULL, 'plain'", "'echo', 'plain', named_args => '[]'",
    "'echo', 'plain', workflow_id => ''", "'echo', 'plain', delay_until_epoch_ms => -1",
])
def test_v14_what_cannot_be_is_refused(client, arguments):
    with pytest.raises(AssertionError, match="ERROR"):
        client.world.psql(f"SELECT dbos.enqueue_workflow({arguments})")


def test_v14_send_message_is_received(client, id):
    client.enqueue("receive", {"count": 2}, id=id)
    for _ in range(2):
        client.world.psql(f"SELECT dbos.send_message('{id}', '{{\"hello\": 1}}', NULL, '{id}-key')")
    client.world.psql(f"SELECT pg_sleep(0.002), dbos.send_message('{id}', '\"again\"')")
    assert client.result(id) == [{"hello": 1}, "again"]


def test_v14_a_message_to_nobody_is_refused(client):
    with pytest.raises(AssertionError, match="(?s)23503.*DBOS non-existent workflow"):
        client.world.psql(f"SELECT dbos.send_message('{unique('nobody')}', '1')")
