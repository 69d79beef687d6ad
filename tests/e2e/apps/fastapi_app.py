"""An app as it was written for a sidecar: publishes with httpx, tells its routes by POST, unwraps CloudEvents."""

import os

import httpx
from fastapi import FastAPI, Request

DAPR_URL = f"http://localhost:{os.getenv('DAPR_HTTP_PORT', '3500')}"
TOPIC = os.environ["TOPIC"]

app = FastAPI()
received = []


@app.post("/dapr/subscribe")
async def subscribe():
    return [{"pubsubname": "kafka-pubsub", "topic": TOPIC, "route": "/api/events/task-events"}]


@app.post("/api/events/task-events")
async def task_events(request: Request):
    envelope = await request.json()
    event = envelope.get("data", envelope)
    received.append({"id": envelope["id"], "source": envelope["source"], "event": event})
    return {"status": "success"}


@app.post("/publish")
async def publish(request: Request):
    async with httpx.AsyncClient() as client:
        answer = await client.post(f"{DAPR_URL}/v1.0/publish/kafka-pubsub/{TOPIC}", json=await request.json())
        answer.raise_for_status()
    return {"status": "published"}


@app.get("/received")
async def get_received():
    return received
