"""Publishes without end through what it takes for its sidecar, eight at a time, and says of each event what it was told."""

import asyncio
import itertools
import os
import sys

import httpx

URL = f"http://localhost:{os.environ['DAPR_HTTP_PORT']}/v1.0/publish/kafka-pubsub/{os.environ['TOPIC']}"
numbers = itertools.count()


async def publish(client: httpx.AsyncClient, ended: asyncio.Event) -> None:
    while not ended.is_set():
        number = next(numbers)
        event = {"event_id": f"e-{number}", "event_type": "task.completed", "user_id": f"user-{number % 20}", "task_id": number}
        answer = await client.post(URL, json=event)
        print(f"e-{number} {answer.status_code}", flush=True)
        await asyncio.sleep(0.01)


async def main() -> None:
    async with httpx.AsyncClient(timeout=90) as client:
        ended = asyncio.Event()
        tasks = [asyncio.create_task(publish(client, ended)) for _ in range(8)]
        # The end of its input is the end of the stream: what is under way is still answered.
        await asyncio.to_thread(sys.stdin.read)
        ended.set()
        await asyncio.gather(*tasks)


asyncio.run(main())
