"""A TCP proxy that misbehaves on demand: what networks and middleboxes do to a connection."""

import asyncio
import socket
import threading

FAULTS = ("cut", "delay", "duplicate", "half_open", "corrupt")
_CHUNK = 65536


class _Pipe:
    """One accepted connection with its own connection to the target."""

    def __init__(self, client, server):
        self.client = client
        self.server = server
        self.mirror = None  # a second connection that gets the client's bytes too
        self.held_until = 0.0
        self.swallow = {"up": False, "down": False}
        self.corrupt = {"up": None, "down": None}  # a number that picks byte and bit

    def abort(self):
        for writer in (self.client[1], self.server[1], self.mirror):
            if writer is not None:
                writer.transport.abort()


class FaultProxy:
    """Forwards to 127.0.0.1:`target_port` from `port`, on a thread of its own."""

    def __init__(self, target_port):
        self.target_port = target_port
        self.port = 0
        self.counts = dict.fromkeys(FAULTS, 0)
        self._pipes = set()
        self._duplicate_next = False
        self._tasks = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def start(self):
        self._thread.start()
        self._server = self._call(self._listen())
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def stop(self):
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def inject(self, fault, rng):
        """Does `fault` to every connection that is open now; `duplicate` to the next one."""
        seed = rng.getrandbits(32)
        seconds = rng.uniform(0.05, 1.5)
        way = rng.choice(["up", "down"])
        self._call(self._inject(fault, seed, seconds, way))

    def open_connections(self):
        return len(self._pipes)

    def _call(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self):
        return await asyncio.start_server(self._accept, "127.0.0.1", 0)

    async def _close(self):
        self._server.close()
        for pipe in list(self._pipes):
            pipe.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _inject(self, fault, seed, seconds, way):
        if fault == "duplicate":
            # It is seen with a new connection: the old ones are cut.
            self._duplicate_next = True
        for pipe in list(self._pipes):
            if fault in ("cut", "duplicate"):
                pipe.abort()
            elif fault == "delay":
                pipe.held_until = self._loop.time() + seconds
            elif fault == "half_open":
                pipe.swallow[way] = True
            elif fault == "corrupt":
                pipe.corrupt[way] = seed
        self.counts[fault] += len(self._pipes)

    async def _accept(self, reader, writer):
        task = asyncio.current_task()
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _serve(self, reader, writer):
        writer.transport.get_extra_info("socket").setsockopt(
            socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
        )
        server = await asyncio.open_connection("127.0.0.1", self.target_port)
        pipe = _Pipe((reader, writer), server)
        drain = None
        if self._duplicate_next:
            self._duplicate_next = False
            mirror_reader, pipe.mirror = await asyncio.open_connection(
                "127.0.0.1", self.target_port
            )
            drain = asyncio.create_task(self._discard(mirror_reader))
        self._pipes.add(pipe)
        ways = [
            asyncio.create_task(self._pump(pipe, "up", reader, server[1])),
            asyncio.create_task(self._pump(pipe, "down", server[0], writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._pipes.discard(pipe)
            pipe.abort()
            for task in [*ways, *([drain] if drain else [])]:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def _discard(self, reader):
        while await reader.read(_CHUNK):
            pass

    async def _pump(self, pipe, way, reader, writer):
        while data := await reader.read(_CHUNK):
            while (wait := pipe.held_until - self._loop.time()) > 0:
                await asyncio.sleep(wait)
            if pipe.swallow[way]:
                continue
            if (pick := pipe.corrupt[way]) is not None:
                pipe.corrupt[way] = None
                data = bytearray(data)
                data[pick % len(data)] ^= 1 << (pick >> 24) % 8
            writer.write(data)
            if way == "up" and pipe.mirror is not None and not pipe.mirror.is_closing():
                pipe.mirror.write(data)
            await writer.drain()
