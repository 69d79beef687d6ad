"""Everything of Dapr's Python SDK that a publisher uses, against whatever answers on the sidecar's ports. Prints what happened as JSON."""

import json
import sys

import grpc
from dapr.clients import DaprClient
from dapr.clients.grpc._state import Concurrency, StateItem, StateOptions

topic = sys.argv[1]
said = {}


def event(task, **user):
    return json.dumps({"event_type": "task.completed", "task_id": task, **user})


def refused(call):
    """The status that the call fails with, and the reason in its details."""
    try:
        call()
    except grpc.RpcError as error:
        reason = error.error_code() if hasattr(error, "error_code") else None
        return {"code": error.code().name, "details": error.details(), "reason": reason}
    return None


with DaprClient() as client:
    client.publish_event("kafka-pubsub", topic, event(1, user_id="ada"), data_content_type="application/json",
                         publish_metadata={"ttlInSeconds": "600", "partitionKey": "elsewhere"})
    client.publish_event("kafka-pubsub", topic, event(2, user_id="ada"))
    bulk = client.publish_events("kafka-pubsub", topic, [event(3, user_id="bob"), event(4, user_id="bob")],
                                 data_content_type="application/json")
    said["bulk_failed"] = len(bulk.failed_entries)
    said["nobody"] = refused(lambda: client.publish_event("kafka-pubsub", topic, event(5), data_content_type="application/json"))
    said["no_pubsub"] = refused(lambda: client.publish_event("nowhere", topic, event(6, user_id="ada")))

    said["absent"] = client.get_state("statestore", "event-1").data.decode()
    client.save_state("statestore", "event-1", json.dumps({"processed": True}), state_metadata={"ttlInSeconds": "3600"})
    read = client.get_state("statestore", "event-1")
    said["state"], said["etag"] = read.json(), read.etag
    said["mismatch"] = refused(lambda: client.save_state("statestore", "event-1", "x", etag="9"))
    first = StateOptions(concurrency=Concurrency.first_write)
    client.save_state("statestore", "claim", "mine", options=first)
    said["second_claim"] = refused(lambda: client.save_state("statestore", "claim", "yours", options=first))
    client.save_bulk_state("statestore", [StateItem(key="a", value="1"), StateItem(key="b", value="2")])
    items = client.get_bulk_state("statestore", ["a", "b", "none"]).items
    said["bulk_state"] = {item.key: item.data.decode() for item in items}
    client.delete_state("statestore", "event-1", etag=read.etag)
    said["deleted"] = client.get_state("statestore", "event-1").data.decode()
    said["metadata"] = client.get_metadata().application_id

print(json.dumps(said))
