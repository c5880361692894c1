"""A scripted OpenAI-compatible server: real HTTP on a port of this machine, and every fault.

It has no model: it says one answer's tokens, from the position that a request's prompt reaches.
"""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from pd_core.text.tokenizer import Tokenizer


@dataclass
class Script:
    """How the server behaves.

    Attributes:
        kind: "vllm", "llama-server", "ollama" or "chat".
        model: its name.
        says: the model's name in streams; None: the right one. Called with the stream's number.
        step_s: between tokens.
        refuse: (status, headers) of a stream's number from 1, instead of an answer.
        overrun: tokens that it makes beyond what it is asked for.
        ids_of: changes a chunk's ids before they are sent.
        text_of: changes a chunk's text before it is sent.
        no_ids: it leaves `token_ids` out.
        cut_after: the body ends after so many tokens, cleanly; `cut_streams` of them.
        cut_with: the bytes before such an end.
        stall_after: it says nothing more after so many tokens.
        tokenizes: whether it has /tokenize.
        tokenize_as: changes the ids that /tokenize gives.
        error_after: an error event after so many tokens.
        pieces: chat: characters of a delta.
        finish: why an answer ends that has no more tokens.
    """

    kind: str = "vllm"
    model: str = "tiny"
    says: Callable[[int], str | None] = lambda _: None
    step_s: float = 0.002
    refuse: Callable[[int], tuple[int, dict[str, str]] | None] = lambda _: None
    overrun: int = 0
    ids_of: Callable[[list[int]], list[Any]] = list
    text_of: Callable[[str], str] = str
    no_ids: bool = False
    cut_after: int | None = None
    cut_streams: int = 1000
    cut_with: bytes = b""
    stall_after: int | None = None
    tokenizes: bool = True
    tokenize_as: Callable[[list[int]], list[int]] = list
    error_after: tuple[int, dict[str, Any]] | None = None
    pieces: int = 3
    finish: str = "stop"


@dataclass
class OpenAiServer:
    """The server; `asked` records the bodies of its streams, `paths` every call.

    `num_prompt` is the length of the prompts; None: every request gets the answer's beginning.
    `left` is set once a client has left a stream before its end.
    """

    tokenizer: Tokenizer
    num_prompt: int | None
    answer: list[int]
    script: Script = field(default_factory=Script)
    asked: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    made: int = 0
    port: int = 0
    tls: ssl.SSLContext | None = None
    connections: set[asyncio.Task[Any]] = field(default_factory=set)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http{'' if self.tls is None else 's'}://127.0.0.1:{self.port}/v1"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        task = asyncio.current_task()
        assert task is not None
        self.connections.add(task)
        try:
            while True:
                begun = await reader.readexactly(1)
                if begun == b"\x16":  # TLS, at which real servers answer so
                    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    return
                head = (begun + await reader.readuntil(b"\r\n\r\n")).decode()
                first, *lines = head.split("\r\n")
                method, path, _ = first.split(" ")
                headers = {
                    name.lower(): value.strip()
                    for name, _, value in (line.partition(":") for line in lines if line)
                }
                raw = await reader.readexactly(int(headers.get("content-length", 0)))
                self.paths.append(path)
                self.headers.append(headers)
                if not await self._answer(writer, method, path, json.loads(raw) if raw else {}):
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except asyncio.CancelledError:
            pass  # the server is closed
        finally:
            self.connections.discard(task)
            writer.close()

    async def _answer(
        self, writer: asyncio.StreamWriter, method: str, path: str, body: dict[str, Any]
    ) -> bool:
        """Answer one request; return whether the connection goes on."""
        script = self.script
        if path == "/v1/models":
            owner = {"vllm": "vllm", "llama-server": "llamacpp"}.get(script.kind, "library")
            entry = {"id": script.model, "object": "model", "owned_by": owner}
            if script.kind == "vllm":
                entry["max_model_len"] = 512  # type: ignore[assignment]
            return await self._json(writer, {"data": [entry]}, head=method == "HEAD")
        if path == "/props" and script.kind == "llama-server":
            return await self._json(writer, {"default_generation_settings": {"n_ctx": 256}})
        if path == "/api/version" and script.kind == "ollama":
            return await self._json(writer, {"version": "0.99"})
        if path == "/tokenize" and script.kind in ("vllm", "llama-server") and script.tokenizes:
            text = body["prompt" if script.kind == "vllm" else "content"]
            ids = script.tokenize_as(self.tokenizer.encode(text))
            return await self._json(writer, {"tokens": ids, "count": len(ids)})
        streams = {"vllm": "/v1/completions", "llama-server": "/completion"}
        if path in (streams.get(script.kind), "/v1/chat/completions"):
            return await self._stream(writer, path, body)
        return await self._json(writer, {"error": {"message": "no such route"}}, status=404)

    async def _stream(self, writer: asyncio.StreamWriter, path: str, body: dict[str, Any]) -> bool:
        self.asked.append(body)
        number, script = len(self.asked), self.script
        refused = script.refuse(number)
        if refused is not None:
            error = {"error": {"message": "not now", "type": "busy", "code": refused[0]}}
            return await self._json(writer, error, status=refused[0], more=refused[1])
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        try:
            cut = await self._events(writer, path, body, number)
        except ConnectionError:
            self.left.set()
            return False
        if cut:
            self._chunk(writer, script.cut_with)
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return not cut

    async def _events(
        self, writer: asyncio.StreamWriter, path: str, body: dict[str, Any], number: int
    ) -> bool:
        """Send the events of a stream; return whether it was cut."""
        script = self.script
        cut = script.cut_after if number <= script.cut_streams else None
        chat = path.endswith("chat/completions")
        parts = self._text_parts(body) if chat else self._id_parts(body)
        for index, (ids, text, last) in enumerate(parts):
            if index == cut:
                return True
            if script.error_after is not None and index == script.error_after[0]:
                self._event(writer, {"error": script.error_after[1]})
                return False
            if index == script.stall_after:
                await asyncio.sleep(3600)
            await asyncio.sleep(script.step_s)
            if writer.is_closing():
                raise ConnectionResetError
            self.made += len(ids)
            self._event(writer, self._shape(path, ids, text, last, number))
            await writer.drain()
        if cut is not None and cut >= len(parts):
            return True
        if chat:
            usage = {"completion_tokens": len(parts), "prompt_tokens": 1}
            self._event(writer, {"choices": [], "usage": usage})
        self._chunk(writer, b"data: [DONE]\n\n")
        return False

    def _id_parts(self, body: dict[str, Any]) -> list[tuple[list[int], str, str | None]]:
        """Return (ids, text, finish) of each chunk: one token each, characters never broken."""
        first = 0 if self.num_prompt is None else len(body["prompt"]) - self.num_prompt
        limit = body.get("max_tokens", body.get("n_predict", 16)) + self.script.overrun
        ids = self.answer[first : first + limit]
        length = first + limit < len(self.answer) or len(ids) == limit
        stream = self.tokenizer.stream(behind=body["prompt"])
        texts = [""] * len(ids)
        for index, token_id in enumerate(ids):
            texts[index] = "".join(text for _, text in stream.push(token_id))
        if ids:
            texts[-1] += "".join(text for _, text in stream.flush())
        ends = ids[-1:] and ids[-1] in body.get("stop_token_ids", ())
        reason = "length" if length and not ends else self.script.finish
        parts: list[tuple[list[int], str, str | None]] = []
        for index, (token_id, text) in enumerate(zip(ids, texts, strict=True)):
            parts.append(([token_id], text, reason if index == len(ids) - 1 else None))
        return parts or [([], "", reason)]

    def _text_parts(self, body: dict[str, Any]) -> list[tuple[list[int], str, str | None]]:
        """Return the chunks of a chat: a few characters each, which count as a token."""
        whole = self.tokenizer.decode(self.answer)
        last = body["messages"][-1]
        if last["role"] == "assistant":
            assert whole.startswith(last["content"]), "a continuation of something else"
            whole = whole[len(last["content"]) :]
        limit = body.get("max_tokens", body.get("max_completion_tokens", 0)) + self.script.overrun
        size = self.script.pieces
        texts = [whole[i : i + size] for i in range(0, len(whole), size)]
        reason = "length" if len(texts) > limit else self.script.finish
        texts = texts[:limit]
        return [([], text, None) for text in texts] + [([], "", reason)]

    def _shape(
        self, path: str, ids: list[int], text: str, last: str | None, number: int
    ) -> dict[str, Any]:
        script = self.script
        model = script.says(number) or script.model
        text, shown = script.text_of(text), script.ids_of(ids)
        if path == "/completion":
            event: dict[str, Any] = {"content": text, "tokens": shown, "stop": False}
            if last is not None:
                kind = {"stop": "eos", "length": "limit"}[last]
                event |= {"stop": True, "stop_type": kind, "tokens_predicted": 1}
            return event | {"model": model}
        if path == "/v1/completions":
            choice: dict[str, Any] = {"index": 0, "text": text, "finish_reason": last}
            if not script.no_ids:
                choice["token_ids"] = shown
            return {"model": model, "choices": [choice]}
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": last}
        return {"model": model, "choices": [choice]}

    def _event(self, writer: asyncio.StreamWriter, event: dict[str, Any]) -> None:
        self._chunk(writer, f"data: {json.dumps(event)}\n\n".encode())

    def _chunk(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        if data:
            writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    async def _json(
        self,
        writer: asyncio.StreamWriter,
        content: dict[str, Any],
        *,
        status: int = 200,
        more: dict[str, str] | None = None,
        head: bool = False,
    ) -> bool:
        raw = json.dumps(content).encode()
        lines = [f"HTTP/1.1 {status} X", f"content-length: {len(raw)}"]
        lines += [f"{name}: {value}" for name, value in (more or {}).items()]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + (b"" if head else raw))
        await writer.drain()
        return True


@asynccontextmanager
async def openai_server(
    tokenizer: Tokenizer,
    num_prompt: int | None,
    answer: Sequence[int],
    script: Script | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[OpenAiServer]:
    """Serve one answer on a port of this machine."""
    server = OpenAiServer(tokenizer, num_prompt, list(answer), script or Script(), tls=tls)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        for connection in [*server.connections]:
            connection.cancel()
        await asyncio.gather(*server.connections, return_exceptions=True)
