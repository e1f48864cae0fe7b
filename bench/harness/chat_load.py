"""A cheap load generator for streamed chat completions: raw sockets on asyncio, one connection
per chat."""

import asyncio
import dataclasses
import json
import random
import time

CHAT_SECONDS = 600
MODEL_NAME = "bench"  # Stator is started with it, llama-server takes any

WORDS = (
    "river stone harbor window garden signal engine letter copper forest market silver bridge"
    " winter candle orange travel mirror pocket thunder island basket planet velvet whisper"
    " mountain ladder pepper button shadow kitchen meadow rocket saddle tunnel violin walnut"
    " anchor blanket cactus donkey eleven feather goblin hammer insect jacket kettle lantern"
    " magnet needle oyster parrot quarter ribbon spider ticket umbrella valley wagon yellow"
    " zebra carry follow gather listen measure notice observe prepare remember search watch"
).split()


def words(seed, count):
    """Reproducible text of `count` words; different seeds share no beginning."""
    source = random.Random(seed)
    return " ".join(source.choice(WORDS) for _ in range(count))


def fresh_messages(key, count):
    """A chat of one turn whose first words occur in no other chat, so that no prefix cache can
    help."""
    return [
        {"role": "system", "content": f"{key}: you are a careful assistant."},
        {
            "role": "user",
            "content": f"Here are notes. {words(key, count)}. Write a long story about them.",
        },
    ]


@dataclasses.dataclass
class ChatResult:
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int
    started: float
    first: float  # when the first text arrived
    ended: float
    gaps: list[float]  # seconds between chunks with text
    text: str

    @property
    def ttft(self):
        return self.first - self.started


def _request_bytes(host, port, payload):
    body = json.dumps(payload).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}:{port}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + body


async def _events(reader):
    """The data of each server-sent event with the time it was read. Chunk framing is skipped by
    looking for lines
    that begin with `data: `: JSON text never holds a raw line end."""
    while line := await reader.readline():
        if line.startswith(b"data: "):
            yield line[6:].strip(), time.perf_counter()


async def stream_chat(host, port, messages, max_tokens, **fields):
    """One greedy streamed chat of exactly `max_tokens` tokens."""
    payload = {
        "model": MODEL_NAME,
        "messages": messages,
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
        **fields,
    }
    reader, writer = await asyncio.open_connection(host, port)
    try:
        started = time.perf_counter()
        writer.write(_request_bytes(host, port, payload))
        await writer.drain()
        status = await reader.readline()
        if b" 200" not in status:
            rest = await asyncio.wait_for(reader.read(4096), 10)
            raise RuntimeError(f"{status.decode().strip()}: {rest.decode(errors='replace')}")
        times, pieces, usage = [], [], None
        async for data, now in _events(reader):
            if data == b"[DONE]":
                break
            event = json.loads(data)
            if "error" in event:
                raise RuntimeError(f"error inside the stream: {event['error']}")
            usage = event.get("usage") or usage
            for choice in event["choices"]:
                if piece := choice["delta"].get("content"):
                    times.append(now)
                    pieces.append(piece)
        ended = time.perf_counter()
    finally:
        writer.close()
    return _result(messages, started, times, ended, usage, "".join(pieces))


def _result(messages, started, times, ended, usage, text):
    if usage is None or not times:
        raise RuntimeError(f"no usage or no text for a chat beginning {messages[0]}")
    details = usage.get("prompt_tokens_details") or {}
    return ChatResult(
        usage["prompt_tokens"],
        usage["completion_tokens"],
        details.get("cached_tokens") or 0,
        started,
        times[0],
        ended,
        [b - a for a, b in zip(times, times[1:])],
        text,
    )


def run_chats(host, port, chats, max_tokens, **fields):
    """Closed loop: `chats` is one list of chats per client; clients run together, each one's
    chats one by one."""

    async def client(list_of_messages):
        return [
            await stream_chat(host, port, messages, max_tokens, **fields)
            for messages in list_of_messages
        ]

    async def everything():
        return await asyncio.wait_for(
            asyncio.gather(*(client(c) for c in chats)), CHAT_SECONDS * max(len(c) for c in chats)
        )

    return [result for results in asyncio.run(everything()) for result in results]
