"""A TCP proxy that breaks one connection after a chosen number of bytes: what becomes of a transfer
that is cut anywhere."""

import asyncio
import collections
import socket
import struct
import threading

HOWS = ("reset", "close", "stall")
# Where a cut is looked for, and up to how many bytes after the proxy was armed: in the handshake of
# a new connection, in a message or a chunk's head, in the bytes of handoffs.
PLACES = {"handshake": 120, "head": 300, "body": 2 << 20}
STALL_SECONDS = 15
_CHUNK = 65536


class CuttingProxy:
    """Passes bytes between 127.0.0.2:`port` and 127.0.0.1:`port`, on a thread of its own. Once it
    is armed it cuts the connection on which the counted byte passes, whatever its direction: reset,
    closed, or stalled, which is to read on both sides and pass on nothing until one side leaves or
    STALL_SECONDS are over."""

    HOST = "127.0.0.2"

    def __init__(self, port):
        self.port = port
        self.cuts = collections.Counter()
        self._armed = None  # [bytes to go, how, place]
        self._pipes = set()
        self._tasks = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._call(self._listen())

    def arm(self, how, place, after):
        self._call(self._arm(how, place, after))

    @property
    def armed(self):
        return self._armed is not None

    def disarm(self):
        self._armed = None

    def stop(self):
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self):
        return await asyncio.start_server(self._accept, self.HOST, self.port)

    async def _arm(self, how, place, after):
        if place == "handshake":
            for pipe in list(self._pipes):
                pipe.end("close")
        self._armed = [after, how, place]

    async def _close(self):
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader, writer):
        task = asyncio.current_task()
        self._tasks.add(task)
        pipe = _Pipe(writer)
        try:
            back, pipe.server = await asyncio.open_connection("127.0.0.1", self.port)
            self._pipes.add(pipe)
            ways = [
                asyncio.create_task(self._pump(pipe, reader, pipe.server)),
                asyncio.create_task(self._pump(pipe, back, writer)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except OSError:
            pass
        finally:
            self._pipes.discard(pipe)
            pipe.end("close")
            self._tasks.discard(task)

    async def _pump(self, pipe, reader, writer):
        while data := await reader.read(_CHUNK):
            if pipe.stalled:
                continue
            if self._armed is not None:
                self._armed[0] -= len(data)
                if self._armed[0] <= 0:
                    keep = len(data) + self._armed[0]
                    _, how, place = self._armed
                    self._armed = None
                    self.cuts[f"{how} in {place}"] += 1
                    writer.write(data[:keep])
                    if how != "stall":
                        await asyncio.wait_for(writer.drain(), 1)
                        pipe.end(how)
                        return
                    pipe.stalled = True
                    self._loop.call_later(STALL_SECONDS, pipe.end, "reset")
                    continue
            writer.write(data)
            await writer.drain()


class _Pipe:
    def __init__(self, client):
        self.client = client
        self.server = None
        self.stalled = False

    def end(self, how):
        for writer in (self.client, self.server):
            if writer is None or writer.is_closing():
                continue
            if how == "reset":
                connection = writer.transport.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            else:
                writer.close()


def free_port():
    """Free on both addresses."""
    with socket.socket() as a, socket.socket() as b:
        a.bind(("127.0.0.1", 0))
        port = a.getsockname()[1]
        b.bind((CuttingProxy.HOST, port))
        return port
