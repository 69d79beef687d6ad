// An app on Dapr's JavaScript SDK: one server for the subscription, and the test's own pages beside it.
const express = require("express");
const { CommunicationProtocolEnum, DaprServer } = require("@dapr/dapr");

const topic = process.env.TOPIC;
const received = [];

async function start() {
  const pages = express();
  const server = new DaprServer({
    serverHost: "127.0.0.1",
    serverPort: process.env.APP_PORT,
    serverHttp: pages,
    communicationProtocol: CommunicationProtocolEnum.HTTP,
    clientOptions: { daprHost: "127.0.0.1", daprPort: process.env.DAPR_HTTP_PORT },
  });
  pages.post("/publish", async (request, response) => {
    await server.client.pubsub.publish("kafka-pubsub", topic, request.body);
    response.send({ status: "published" });
  });
  pages.get("/received", (_, response) => response.send(received));
  await server.pubsub.subscribe("kafka-pubsub", topic, async (data, headers) => {
    received.push({ id: headers["idempotency-key"], source: headers["pubsubname"], event: data });
  });
  await server.start();
}

start().catch((error) => {
  console.error(error);
  process.exit(1);
});
