"""A todo service as it was written for a Dapr sidecar: plain HTTP with httpx, nothing of Dapr installed."""

import json
import os

import httpx
from fastapi import FastAPI, Request

DAPR = f"http://localhost:{os.getenv('DAPR_HTTP_PORT', '3500')}/v1.0"
PUBSUB, TOPIC, STORE = os.getenv("PUBSUB_NAME", "kafka-pubsub"), os.environ["TOPIC"], "statestore"

app = FastAPI()
handled = []


@app.post("/tasks/{task_id}/complete")
async def complete(task_id: int, request: Request):
    event = {
        "event_id": f"completed-{task_id}",
        "event_type": "task.completed",
        "event_version": "1.0",
        "timestamp": "2025-12-30T10:00:00Z",
        "source": "todo-backend",
        "data": {"task_id": task_id, **await request.json()},
    }
    async with httpx.AsyncClient() as client:
        answer = await client.post(
            f"{DAPR}/publish/{PUBSUB}/{TOPIC}",
            content=json.dumps(event),
            headers={"Content-Type": "application/json"},
        )
    return {"status": answer.status_code, "body": answer.text}


@app.post("/handle")
async def handle(request: Request):
    """Handles an event once, as idempotency code does it over the state API."""
    event = await request.json()
    key = f"event-{event['event_id']}"
    async with httpx.AsyncClient() as client:
        seen = await client.get(f"{DAPR}/state/{STORE}/{key}")
        if seen.status_code == 200 and seen.json().get("processed"):
            return {"status": "SUCCESS", "duplicate": True}
        handled.append(event["event_id"])
        state = [{"key": key, "value": {"processed": True, "by": "todo"}, "metadata": {"ttlInSeconds": "3600"}}]
        (await client.post(f"{DAPR}/state/{STORE}", json=state)).raise_for_status()
    return {"status": "SUCCESS", "duplicate": False}


@app.get("/handled")
async def everything():
    return handled
