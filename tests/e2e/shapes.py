"""Publishes an event in each shape that producers write, with the clients that Python programs use; prints what was sent, a line each."""

import json
import sys
import uuid
from datetime import datetime, timezone

import httpx
from confluent_kafka import Producer
from kafka import KafkaProducer

brokers, topic, worker = sys.argv[1:]
confluent = Producer({"bootstrap.servers": brokers})
python = KafkaProducer(
    bootstrap_servers=brokers,
    key_serializer=str.encode,
    value_serializer=lambda event: json.dumps(event).encode(),
)


def sent(shape, event_type, event_id=None, source="unknown"):
    print(json.dumps({"shape": shape, "user": f"user-{shape}", "type": event_type, "id": event_id, "source": source}))


def task(user, **more):
    return {"task_id": 123, "user_id": user, **more}


now = datetime.now(timezone.utc)

# A: nested data, by librdkafka.
event = {
    "event_id": str(uuid.uuid4()),
    "event_type": "task.created",
    "event_version": "1.0",
    "timestamp": now.isoformat(),
    "source": "todo-backend",
    "data": task("user-a", title="Buy groceries \u00e9\U0001f600", created_at=now.isoformat()),
    "metadata": {"correlation_id": "req_xyz", "user_id": "user-a"},
}
confluent.produce(topic, key="user-a", value=json.dumps(event, ensure_ascii=False))
sent("a", "task.created", event["event_id"], "todo-backend")

# B: flat, with a payload, by kafka-python.
event = {
    "event_id": str(uuid.uuid4()),
    "event_type": "task.completed",
    "event_version": "1.0",
    "user_id": "user-b",
    "task_id": 123,
    "timestamp": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
    "payload": {"task_id": 123, "recurring_pattern": "DAILY"},
}
python.send(topic, key="user-b", value=event)
sent("b", "task.completed", event["event_id"])

# C: a UUID as task, a time without zone, no version.
event = {
    "event_id": str(uuid.uuid4()),
    "event_type": "reminder.triggered",
    "timestamp": now.replace(tzinfo=None).isoformat(),
    "user_id": "user-c",
    "task_id": str(uuid.uuid4()),
    "data": {"title": "Call the bank"},
}
python.send(topic, key="user-c", value=event)
sent("c", "reminder.due", event["event_id"])

# D: as a sidecar wraps it.
inner = {"event_type": "task.deleted", "user_id": "user-d", "task_id": 123, "data": {"reason": "user_requested"}}
event = {
    "specversion": "1.0",
    "type": "com.dapr.event.sent",
    "source": "todo-service",
    "id": str(uuid.uuid4()),
    "datacontenttype": "application/json",
    "topic": topic,
    "pubsubname": "kafka-pubsub",
    "time": now.isoformat(timespec="seconds"),
    "traceparent": "",
    "traceid": "",
    "tracestate": "",
    "data": inner,
}
python.send(topic, key="user-d", value=event)
sent("d", "task.deleted", event["id"], "todo-service")

# E: a binary CloudEvent.
headers = {
    "ce_specversion": "1.0",
    "ce_type": "task.updated",
    "ce_source": "planner",
    "ce_id": str(uuid.uuid4()),
    "ce_time": now.isoformat(),
    "content-type": "application/json",
}
confluent.produce(topic, key="user-e", value=json.dumps(task("user-e", title="Buy flowers")), headers=headers)
sent("e", "task.updated", headers["ce_id"], "planner")

# F: as little as can be, with no id and no time.
python.send(topic, key="user-f", value={"event_type": "task.completed", "user_id": "user-f", "task_id": 123})
sent("f", "task.completed")
confluent.flush(30)
python.flush(30)

# Over HTTP: an event and a line-by-line batch.
events = f"{worker}/events?topic={topic}"
answer = httpx.post(events, json={"event_type": "task.completed", "user_id": "user-http", "task_id": 123}, trust_env=False)
answer.raise_for_status()
sent("http", "task.completed", answer.json()["events"][0]["event_id"], None)
lines = [json.dumps({"event_type": "task.deleted", "user_id": f"user-line{n}", "task_id": n}) for n in range(2)]
answer = httpx.post(events, content="\n".join(lines), headers={"content-type": "application/x-ndjson"}, trust_env=False)
answer.raise_for_status()
for n, stored in enumerate(answer.json()["events"]):
    sent(f"line{n}", "task.deleted", stored["event_id"], None)

# By the generated models, which stand beside this file's copy.
from tasks import TaskCreatedPayload, TaskEvent, TaskEventType  # noqa: E402

event = TaskEvent(
    event_type=TaskEventType.CREATED,
    payload=TaskCreatedPayload(task_id=uuid.uuid4(), user_id="user-model", title="Buy groceries", priority="high"),
    source="todo-backend",
)
stored = event.publish(worker, topic=topic)
assert stored["topic"] == topic and stored["event_id"] == event.event_id, stored
sent("model", "task.created", event.event_id, "todo-backend")
