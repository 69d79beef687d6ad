// What a publisher uses of Dapr's JavaScript SDK, against whatever answers on the sidecar's ports. Prints what happened as JSON.
const { DaprClient, CommunicationProtocolEnum } = require("@dapr/dapr");

const [host, port, grpcPort, topic] = process.argv.slice(2);
const event = (task, user) => ({ event_type: "task.completed", task_id: task, ...(user && { user_id: user }) });

async function tell(client, protocol) {
  const said = {};
  // Over HTTP the SDK answers with the error, over gRPC it throws the same object.
  const publish = client.pubsub.publish("kafka-pubsub", topic, event(9), { contentType: "application/json" });
  const nobody = await publish.catch((thrown) => thrown);
  said.nobody = nobody.error ? String(nobody.error.message) : null;
  const options = { contentType: "application/json", metadata: { "cloudevent.subject": protocol } };
  said.published = (await client.pubsub.publish("kafka-pubsub", topic, event(1, "ada"), options)).error ?? null;
  const messages = [2, 3].map((task) => ({ entryID: `e${task}`, event: event(task, "bob"), contentType: "application/json" }));
  said.bulkFailed = (await client.pubsub.publishBulk("kafka-pubsub", topic, messages)).failedMessages.length;

  const key = `event-${protocol}`;
  said.absent = await client.state.get("statestore", key);
  said.saved = (await client.state.save("statestore", [{ key, value: { processed: true } }])).error ?? null;
  said.state = await client.state.get("statestore", key);
  said.many = await client.state.getBulk("statestore", [key, "none"]);
  said.deleted = (await client.state.delete("statestore", key)).error ?? null;
  said.gone = await client.state.get("statestore", key);
  return said;
}

async function main() {
  const said = {};
  for (const [protocol, daprPort] of [["http", port], ["grpc", grpcPort]]) {
    const communicationProtocol = CommunicationProtocolEnum[protocol.toUpperCase()];
    const client = new DaprClient({ daprHost: host, daprPort, communicationProtocol, logger: { level: "error" } });
    said[protocol] = await tell(client, protocol);
    await client.stop();
  }
  console.log(JSON.stringify(said));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
