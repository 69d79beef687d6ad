// What the generated TypeScript promises, after tsc. `catalogue.json` and the compiled modules are in the working folder.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";

const catalogue = JSON.parse(readFileSync("catalogue.json", "utf8"));
const load = (name) => import(pathToFileURL(join(process.cwd(), "made", `${name}.js`)).href);
const TIME = "2025-12-30T10:00:00Z";
const canonical = (kind, data, more = {}) => ({
  event_id: "e-1", event_type: kind.type, event_version: kind.version, timestamp: TIME, source: "s", data, ...more,
});

for (const kind of catalogue) {
  test(`${kind.type}: its example is accepted and comes back the same`, async () => {
    const models = await load(kind.module);
    const event = models.parse(canonical(kind, kind.example));
    assert.deepEqual(event, canonical(kind, kind.example));
    assert.deepEqual(models.fromJson(models.toJson(event)), event);
    assert.deepEqual(models.validate(canonical(kind, kind.example)), []);
    assert.equal(models.userId(event), kind.example.user_id);
    const made = models.newEvent(kind.type, kind.example);
    assert.equal(made.event_version, kind.version);
    assert.match(made.event_id, /^[0-9a-f-]{36}$/);
  });

  test(`${kind.type}: each counterexample is rejected`, async () => {
    const models = await load(kind.module);
    for (const { why, data } of kind.counterexamples) {
      assert.throws(() => models.parse(canonical(kind, data)), models.EventError, why);
      const problems = models.validate(canonical(kind, data));
      assert.ok(problems.length > 0 && problems.every((problem) => problem.startsWith("data")), `${why}: ${problems}`);
    }
  });

  test(`${kind.type}: every shape is the same event`, async () => {
    const models = await load(kind.module);
    const event = models.parse(canonical(kind, kind.example));
    const { user_id, task_id, ...bare } = kind.example;
    const ids = Object.fromEntries(Object.entries({ user_id, task_id }).filter(([, value]) => value !== undefined));
    const outside = canonical(kind, bare, ids);
    const { data, ...rest } = outside;
    const payload = { ...rest, payload: data };
    const cloud = { specversion: "1.0", type: "com.dapr.event.sent", source: "d", id: "ce", data: payload };
    const shapes = [outside, payload, cloud, { ...cloud, data: JSON.stringify(outside) }];
    if (kind.version === "1.0") {
      shapes.push({ specversion: "1.0", type: kind.type, source: "s", id: "e-1", time: TIME, data: kind.example });
    }
    shapes.push(...kind.aliases.map((alias) => canonical({ ...kind, type: alias }, kind.example)));
    shapes.push(canonical({ ...kind, type: `${kind.type}.v${kind.version.split(".")[0]}` }, kind.example));
    for (const shape of shapes) assert.deepEqual(models.parse(shape), event, JSON.stringify(shape));
  });

  test(`${kind.type}: absent times are the event's own`, async () => {
    const models = await load(kind.module);
    const data = Object.fromEntries(Object.entries(kind.example).filter(([name]) => !kind.filled.includes(name)));
    const event = models.parse(canonical(kind, data));
    for (const name of kind.filled) assert.equal(event.data[name], TIME);
  });

  for (const past of kind.past) {
    test(`${kind.type} ${past.version}: arrives at the newest`, async () => {
      const models = await load(kind.module);
      const old = canonical(kind, past.example, { event_version: past.version });
      const migrated = models.migrate(old);
      assert.deepEqual([migrated.data, migrated.event_version], [past.current, kind.version]);
      assert.deepEqual(models.migrate(migrated), migrated);
      assert.deepEqual(models.parse(old), models.parse(canonical(kind, past.current)));
    });
  }
}

test("a time is read as the worker reads it", async () => {
  const { validate, EventError, parse } = await load("tasks");
  const event = (timestamp) => ({ event_type: "task.deleted", user_id: "u", task_id: 1, timestamp });
  for (const [text] of catalogue[0].times.valid) assert.deepEqual(validate(event(text)), [], text);
  for (const text of catalogue[0].times.invalid) assert.throws(() => parse(event(text)), EventError, String(text));
});

test("problems are named by their path, unknown fields are passed on", async () => {
  const { validate, parse } = await load("tasks");
  const event = { event_type: "task.created", user_id: "u", task_id: "x", data: { title: "", tags: [7] } };
  assert.deepEqual(validate(event), [
    "data.task_id: of no type that it may be", "data.title: fewer than 1 characters", "data.tags[0]: not a text",
  ]);
  assert.deepEqual(validate({ event_type: "task.made" }), ["event_type: not one of this domain"]);
  const passed = parse({ event_type: "task.deleted", user_id: "u", task_id: 1, note: { a: [1] }, data: { more: true } });
  assert.deepEqual([passed.note, passed.data.more, passed.data.user_id, "user_id" in passed], [{ a: [1] }, true, "u", false]);
});

test("publish posts the canonical event and answers where it stands", async () => {
  const { newEvent, publish, PublishError } = await load("tasks");
  const seen = [];
  let answer = [202, { accepted: 1, events: [{ event_id: "e", topic: "t", partition: 3, offset: 7 }] }];
  const server = createServer((request, response) => {
    let body = "";
    request.on("data", (part) => (body += part));
    request.on("end", () => {
      seen.push([request.method, request.url, request.headers["dapr-api-token"], JSON.parse(body)]);
      response.writeHead(answer[0]).end(JSON.stringify(answer[1]));
    });
  });
  await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
  try {
    const url = `http://127.0.0.1:${server.address().port}/`;
    const event = newEvent("task.deleted", { task_id: 1, user_id: "ada" });
    assert.equal((await publish(event, url, { topic: "a b", token: "secret" })).offset, 7);
    assert.deepEqual(seen[0], ["POST", "/events?topic=a%20b", "secret", event]);
    answer = [503, { error: "Kafka is away" }];
    await assert.rejects(publish(event, url), (error) => error instanceof PublishError && error.status === 503);
  } finally {
    server.close();
    server.closeAllConnections();
  }
});
