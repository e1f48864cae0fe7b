"""One request over HTTP and everything that came back, whole or not.

The official client raises at the first irregularity; here the irregular is what a test looks at: a
stream that is cut, one that ends in an error object, one that hangs.
"""

import dataclasses
import http.client
import json
import time


@dataclasses.dataclass
class Answer:
    status: int = 0  # 0: no response at all
    headers: dict = dataclasses.field(default_factory=dict)
    text: str = ""
    tokens: list = dataclasses.field(default_factory=list)
    prompt_tokens: list = dataclasses.field(default_factory=list)
    # With logprobs, per token: its text, and the best texts with their logprobs.
    token_texts: list = dataclasses.field(default_factory=list)
    best: list = dataclasses.field(default_factory=list)
    finish: str | None = None
    usage: dict | None = None
    error: dict | None = None
    done: bool = False  # the stream said [DONE]
    broken: str = ""  # how the connection ended, where it did not end as HTTP says
    seconds: float = 0.0

    @property
    def complete(self):
        return self.status == 200 and self.done and not self.error and not self.broken

    def __str__(self):
        return (
            f"status {self.status}, {len(self.tokens)} tokens, finish {self.finish}, done "
            f"{self.done}, error {self.error}, broken {self.broken!r}, {self.seconds:.1f} s"
        )


def stream_completion(server, prompt, max_tokens, on_piece=None, timeout=30, **fields):
    """A streamed /v1/completions with token ids and usage. `on_piece(answer)` is called after every
    event; where it returns False the client hangs up. Never raises for what the server does:
    `broken` says it."""
    body = {
        "model": "echo",
        "prompt": prompt,
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
        **fields,
    }
    return exchange(server, "/v1/completions", body, on_piece, timeout)


def exchange(server, path, body, on_piece=None, timeout=30):
    """POST and read to the end, a stream or not. `timeout` bounds the whole of it."""
    answer = Answer()
    start = time.monotonic()
    connection = http.client.HTTPConnection(server.host, server.port, timeout=timeout)
    try:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", path, body=json.dumps(body), headers=headers)
        response = connection.getresponse()
        answer.status = response.status
        answer.headers = {name.lower(): value for name, value in response.getheaders()}
        if not answer.headers.get("content-type", "").startswith("text/event-stream"):
            _take(answer, json.loads(response.read()))
            return answer
        while line := response.readline():
            if time.monotonic() - start > timeout:
                raise TimeoutError(f"not at its end after {timeout} s")
            if not line.startswith(b"data: "):
                continue
            if line.strip() == b"data: [DONE]":
                answer.done = True
            else:
                _take(answer, json.loads(line[len(b"data: ") :]))
            if on_piece and on_piece(answer) is False:
                answer.broken = "the client left"
                return answer
        # http.client takes the end of the connection within a chunk head for the end of the body.
        if not (answer.done or answer.error):
            answer.broken = answer.broken or "the stream ended without [DONE]"
    except (OSError, http.client.HTTPException, ValueError) as e:
        answer.broken = f"{type(e).__name__}: {e}"
    finally:
        answer.seconds = time.monotonic() - start
        connection.close()
    return answer


def _take(answer, piece):
    if piece.get("error"):
        answer.error = piece["error"]
    if piece.get("usage"):
        answer.usage = piece["usage"]
    for choice in piece.get("choices", []):
        text = choice.get("text")
        if text is None:
            part = choice.get("delta") or choice.get("message") or {}
            text = part.get("content") or ""
        answer.text += text
        answer.tokens += choice.get("token_ids") or []
        answer.prompt_tokens += choice.get("prompt_token_ids") or []
        logprobs = choice.get("logprobs") or {}
        answer.token_texts += logprobs.get("tokens") or []
        answer.best += logprobs.get("top_logprobs") or []
        for token in logprobs.get("content") or []:  # of a chat
            answer.token_texts.append(token["token"])
            answer.best.append({t["token"]: t["logprob"] for t in token["top_logprobs"]})
        answer.finish = choice.get("finish_reason") or answer.finish


def echo_of(prompt, count):
    """What the echo engine answers to a prompt of ASCII letters: each is a token."""
    return (prompt * (count // len(prompt) + 1))[:count]
