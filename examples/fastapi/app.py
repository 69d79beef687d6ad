"""A FastAPI app fed by the worker's http handler.

    pip install fastapi uvicorn
    uvicorn app:app --port 8000
    worker --role standalone -c worker.toml
    curl localhost:3500/events -d '{"event_type":"task.completed","user_id":"ada","task_id":1}'
"""

from fastapi import FastAPI, HTTPException, Request

app = FastAPI()


@app.post("/api/events")
async def on_event(request: Request) -> dict[str, str]:
    """One event, as a CloudEvent around the event as it is stored.

    Any 2xx is success, 400 and 422 go to the dead letters at once, anything else comes again on the schedule of the event's type.
    """
    event = (await request.json())["data"]
    if event["event_type"] == "task.completed" and event["data"]["task_id"] == 0:
        raise HTTPException(status_code=422, detail="there is no task 0")
    # After a crash the same event can come again, with the same Idempotency-Key.
    attempt, key = request.headers["x-worker-attempt"], request.headers["idempotency-key"]
    print(f"{event['event_type']} of {event['data']['user_id']}, run {attempt}, {key}", flush=True)
    return {"status": "SUCCESS"}
