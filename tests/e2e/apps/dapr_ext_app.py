"""An app on Dapr's own FastAPI extension."""

import os

import httpx
from dapr.ext.fastapi import DaprApp
from fastapi import Body, FastAPI, Request

DAPR_URL = f"http://localhost:{os.getenv('DAPR_HTTP_PORT', '3500')}"
TOPIC = os.environ["TOPIC"]

app = FastAPI()
dapr_app = DaprApp(app)
received = []


@dapr_app.subscribe(pubsub="kafka-pubsub", topic=TOPIC, dead_letter_topic=f"{TOPIC}-dead")
def handler(event_data=Body()):
    received.append({"id": event_data["id"], "source": event_data["source"], "event": event_data["data"]})


@app.post("/publish")
async def publish(request: Request):
    async with httpx.AsyncClient() as client:
        answer = await client.post(f"{DAPR_URL}/v1.0/publish/kafka-pubsub/{TOPIC}", json=await request.json())
        answer.raise_for_status()
    return {"status": "published"}


@app.get("/received")
async def get_received():
    return received
