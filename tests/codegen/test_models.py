"""What the generated Pydantic models promise. `MODELS` is the folder that they were generated into, with `catalogue.json` beside them."""

import asyncio
import importlib
import json
import os
import sys
import threading
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from pydantic import ValidationError

FOLDER = Path(os.environ["MODELS"])
sys.path.insert(0, str(FOLDER))
CATALOGUE = json.loads((FOLDER / "catalogue.json").read_text())
TYPES = [pytest.param(kind, id=kind["type"]) for kind in CATALOGUE]
COUNTEREXAMPLES = [
    pytest.param(kind, one["data"], id=f"{kind['type']}: {one['why']}") for kind in CATALOGUE for one in kind["counterexamples"]
]
PAST = [pytest.param(kind, past, id=f"{kind['type']} {past['version']}") for kind in CATALOGUE for past in kind["past"]]
TIME = "2025-12-30T10:00:00Z"


def module(kind):
    return importlib.import_module(kind["module"])


def event_class(kind):
    return getattr(module(kind), kind["event"])


def canonical(kind, data, **more):
    return {"event_id": "e-1", "event_type": kind["type"], "event_version": kind["version"], "timestamp": TIME, "source": "s", "data": data, **more}


def same(left, right):
    """JSON values, where times and numbers may be written in another way."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right and isinstance(left, bool) == isinstance(right, bool)



@pytest.mark.parametrize("kind", TYPES)
def test_an_example_is_accepted_and_comes_back_the_same(kind):
    Event = event_class(kind)
    event = Event.model_validate(canonical(kind, kind["example"]))
    assert same(json.loads(event.to_json()), canonical(kind, kind["example"]))
    assert Event.from_json(event.to_json()) == event
    assert event.user_id == kind["example"]["user_id"]
    assert module(kind).validate(canonical(kind, kind["example"])) == []
    assert type(event.data).__name__ == kind["payload"]


@pytest.mark.parametrize(("kind", "data"), COUNTEREXAMPLES)
def test_a_counterexample_is_rejected(kind, data):
    with pytest.raises(ValidationError):
        event_class(kind).model_validate(canonical(kind, data))
    with pytest.raises(ValidationError):
        getattr(module(kind), kind["payload"]).model_validate(data)
    problems = module(kind).validate(canonical(kind, data))
    assert problems and all(problem.startswith("data") for problem in problems), problems


@pytest.mark.parametrize(("kind", "past"), PAST)
def test_a_past_version_arrives_at_the_newest(kind, past):
    old = canonical(kind, past["example"], event_version=past["version"])
    event = event_class(kind).model_validate(old)
    assert event.event_version == kind["version"]
    migrated = module(kind).migrate(old)
    assert (migrated["data"], migrated["event_version"]) == (past["current"], kind["version"])
    assert module(kind).migrate(migrated) == migrated
    newest = canonical(kind, past["current"])
    assert event == event_class(kind).model_validate(newest)


@pytest.mark.parametrize("kind", TYPES)
def test_every_shape_is_the_same_event(kind):
    Event = event_class(kind)
    event = Event.model_validate(canonical(kind, kind["example"]))
    bare = {key: value for key, value in kind["example"].items() if key not in ("user_id", "task_id")}
    ids = {key: kind["example"][key] for key in ("user_id", "task_id") if key in kind["example"]}
    outside = canonical(kind, bare, **ids)
    payload = {("payload" if key == "data" else key): value for key, value in outside.items()}
    cloud = {"specversion": "1.0", "type": "com.dapr.event.sent", "source": "d", "id": "ce", "data": payload}
    quoted = {**cloud, "data": json.dumps(outside)}
    around = {"specversion": "1.0", "type": kind["type"], "source": "s", "id": "e-1", "time": TIME, "data": kind["example"]}
    shapes = [outside, payload, cloud, quoted]
    if kind["version"] == "1.0":
        shapes.append(around)
    for shape in shapes:
        assert Event.model_validate(shape) == event, shape
    for alias in kind["aliases"]:
        assert Event.model_validate(canonical({**kind, "type": alias}, kind["example"])) == event
    suffixed = f"{kind['type']}.v{kind['version'].split('.')[0]}"
    assert Event.model_validate(canonical({**kind, "type": suffixed}, kind["example"])).event_type == event.event_type


@pytest.mark.parametrize("kind", TYPES)
def test_absent_times_are_the_events_own(kind):
    data = {key: value for key, value in kind["example"].items() if key not in kind["filled"]}
    event = event_class(kind).model_validate(canonical(kind, data))
    for name in kind["filled"]:
        assert getattr(event.data, name) == event.timestamp == datetime(2025, 12, 30, 10, tzinfo=timezone.utc)


# === The domain `tasks` ===


def tasks():
    return importlib.import_module("tasks")


def test_the_example_of_the_documentation():
    from tasks import TaskCreatedPayload, TaskEvent, TaskEventType

    event = TaskEvent(
        event_type=TaskEventType.CREATED,
        payload=TaskCreatedPayload(task_id=uuid4(), user_id=uuid4(), title="Buy groceries", priority="high"),
    )
    assert UUID(event.event_id).version == 4
    assert event.event_version == "1.0"
    assert event.timestamp.utcoffset().total_seconds() == 0
    assert abs((datetime.now(timezone.utc) - event.timestamp).total_seconds()) < 60
    assert event.data.created_at == event.timestamp
    assert isinstance(event.data.user_id, str) and isinstance(event.data.task_id, UUID)
    assert TaskEvent.model_validate(json.loads(event.to_json())) == event
    with pytest.raises(ValidationError):
        TaskCreatedPayload(task_id=uuid4(), user_id=uuid4(), title="")
    with pytest.raises(ValidationError):
        TaskCreatedPayload(task_id="not-a-uuid", user_id=uuid4(), title="Buy groceries")
    assert TaskCreatedPayload(task_id=123, user_id="user_abc", title="x" * 200).task_id == 123
    with pytest.raises(ValidationError):
        TaskCreatedPayload(task_id=123, user_id="user_abc", title="x" * 201)


@pytest.mark.parametrize("task_id", [True, 12.5, "123", "{880e8400-e29b-41d4-a716-446655440003}", None, [1]])
def test_what_is_no_task_id(task_id):
    with pytest.raises(ValidationError):
        tasks().TaskDeletedPayload(task_id=task_id, user_id="u")


@pytest.mark.parametrize("text", CATALOGUE[0]["times"]["valid"])
def test_every_form_of_a_time_is_read_as_the_worker_reads_it(text):
    sent, expected = text
    event = tasks().TaskEvent.model_validate({"event_type": "task.deleted", "user_id": "u", "task_id": 1, "timestamp": sent})
    assert event.timestamp == datetime.fromisoformat(expected.replace("Z", "+00:00")) == event.data.deleted_at


@pytest.mark.parametrize("text", CATALOGUE[0]["times"]["invalid"])
def test_what_the_worker_takes_for_no_time_is_none(text):
    with pytest.raises(ValidationError):
        tasks().TaskEvent.model_validate({"event_type": "task.deleted", "user_id": "u", "task_id": 1, "timestamp": text})


def test_a_payload_of_another_type_is_refused():
    module = tasks()
    other = module.TaskDeletedPayload(task_id=1, user_id="u")
    with pytest.raises(ValidationError, match="task.created takes a TaskCreatedPayload"):
        module.TaskEvent(event_type="task.created", payload=other)
    with pytest.raises(ValidationError, match="event_type"):
        module.TaskEvent(event_type="task.made", payload=other)


def test_problems_are_named_by_their_path():
    event = {"event_type": "task.created", "user_id": "u", "task_id": "x", "data": {"title": "", "tags": [7]}}
    problems = tasks().validate(event)
    assert [problem.split(":")[0] for problem in problems] == ["data.task_id", "data.title", "data.tags.0"], problems


def test_unknown_fields_and_metadata_are_passed_on():
    sent = {"event_type": "task.deleted", "user_id": "u", "task_id": 1, "note": {"a": [1]}, "metadata": {"correlation_id": "c", "x": 1}}
    event = json.loads(tasks().TaskEvent.model_validate({**sent, "data": {"more": True}}).to_json())
    assert (event["note"], event["metadata"], event["data"]["more"]) == ({"a": [1]}, {"correlation_id": "c", "x": 1}, True)
    assert "user_id" not in event and event["data"]["user_id"] == "u"


def test_the_user_at_the_top_wins_over_the_datas_and_that_over_the_metadatas():
    read = tasks().TaskEvent.model_validate
    event = read({"event_type": "task.deleted", "task_id": 1, "user_id": "top", "data": {"user_id": "data"}})
    assert (event.user_id, json.loads(event.to_json())["user_id"]) == ("top", "top")
    event = read({"event_type": "task.deleted", "task_id": 1, "data": {"user_id": "data"}, "metadata": {"user_id": "meta"}})
    assert event.user_id == "data"
    assert read({"event_type": "task.deleted", "task_id": 1, "metadata": {"user_id": "meta"}}).user_id == "meta"
    with pytest.raises(ValidationError):
        read({"event_type": "task.deleted", "task_id": 1})


def test_a_version_that_is_newer_than_the_models_is_kept():
    event = tasks().TaskEvent.model_validate(
        {"event_type": "task.deleted", "event_version": "1.7", "user_id": "u", "task_id": 1, "data": {"mood": "good"}}
    )
    assert (event.event_version, event.data.mood) == ("1.7", "good")


class Worker(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.seen.append((self.path, dict(self.headers.items()), body))
        status, answer = self.server.answer
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def worker():
    server = HTTPServer(("127.0.0.1", 0), Worker)
    server.seen, server.answer = [], (202, {"accepted": 1, "events": [{"event_id": "e", "topic": "t", "partition": 3, "offset": 7}]})
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_publish_posts_the_canonical_event_and_answers_where_it_stands(worker):
    module = tasks()
    event = module.TaskEvent(event_type="task.deleted", payload=module.TaskDeletedPayload(task_id=1, user_id="ada"))
    url = f"http://127.0.0.1:{worker.server_port}/"
    assert event.publish(url, topic="a b", token="secret") == {"event_id": "e", "topic": "t", "partition": 3, "offset": 7}
    assert asyncio.run(event.publish_async(url))["offset"] == 7
    (path, headers, body), (second, _, _) = worker.seen
    assert (path, second) == ("/events?topic=a%20b", "/events")
    headers = {name.lower(): value for name, value in headers.items()}
    assert (headers["content-type"], headers["dapr-api-token"]) == ("application/json", "secret")
    assert body == json.loads(event.to_json()) and body["data"]["user_id"] == "ada"
    worker.answer = (503, {"error": "Kafka is away"})
    with pytest.raises(module.PublishError, match="503.*Kafka is away") as refused:
        event.publish(url)
    assert refused.value.status == 503
