"""An app as it was written for a sidecar, on Flask and requests: request.json, and an answer of "ok" that the sidecar would have retried."""

import json
import os

import requests
from flask import Flask, jsonify, request

DAPR_URL = f"http://localhost:{os.getenv('DAPR_HTTP_PORT', '3500')}"
TOPIC = os.environ["TOPIC"]

app = Flask(__name__)
received = []


@app.route("/dapr/subscribe", methods=["GET"])
def subscribe():
    return jsonify([{"pubsubname": "kafka-pubsub", "topic": TOPIC, "routes": {"default": "/orders"}}])


@app.route("/orders", methods=["POST"])
def orders():
    envelope = request.json
    received.append({"id": envelope["id"], "source": envelope["source"], "event": envelope["data"]})
    return jsonify({"status": "ok"})


@app.route("/publish", methods=["POST"])
def publish():
    answer = requests.post(
        url="%s/v1.0/publish/%s/%s" % (DAPR_URL, "kafka-pubsub", TOPIC),
        data=json.dumps(request.json),
        headers={"content-type": "application/json"},
    )
    answer.raise_for_status()
    return jsonify({"status": "published"})


@app.route("/received")
def get_received():
    return jsonify(received)


if __name__ == "__main__":
    app.run(port=int(os.environ["APP_PORT"]))
