"""A rank's prefix cache: blocks by hash, the least recently used leaves go first."""

import hashlib
import pickle
import struct

ROOT = hashlib.sha256(pickle.dumps("vllm-none-hash", protocol=5)).digest()
NAMESPACE = b"sglang-kv-event-namespace-v1"


def vllm_digest(parent, tokens, salt=None):
    """vLLM 0.32's, checked against recorded blocks."""
    extra = (("cache_salt", salt),) if salt else None
    parts = (parent or ROOT, tuple(tokens), extra)
    return hashlib.sha256(pickle.dumps(parts, protocol=5)).digest()


def sglang_digest(parent, tokens):
    data = b"".join(struct.pack("<I", t) for t in tokens)
    return hashlib.sha256((parent or b"") + data).digest()


def shown(digest, form):
    """A block's hash as events say it."""
    if form == "bytes":
        return digest
    if form == "signed":
        return int.from_bytes(digest[:8], "big", signed=True)
    return int.from_bytes(digest[-8:], "big")


class Block:
    def __init__(self, digest, parent, tokens, number):
        self.digest, self.parent, self.tokens, self.number = digest, parent, tokens, number
        self.children, self.used, self.pins = 0, 0, 0


class PrefixCache:
    def __init__(self, page, capacity, digest):
        self.page, self.capacity, self.digest = page, capacity, digest
        self.blocks, self.clock = {}, 0
        self.free = list(range(capacity))[::-1]

    def take(self, ids, salt=None):
        """(blocks of the prompt, how many were there, removed). Those of the prompt are pinned
        until `release`. A prompt that does not fit is kept as far as it fits."""
        parent, chain, hits, removed = None, [], 0, []
        self.clock += 1
        for at in range(0, len(ids) - self.page + 1, self.page):
            tokens = ids[at : at + self.page]
            digest = self.digest(parent, tokens, salt if at == 0 else None)
            block = self.blocks.get(digest)
            if block:
                hits += hits == len(chain)
            else:
                if not self.free and not self._evict(removed):
                    break
                block = Block(digest, parent, tokens, self.free.pop())
                self.blocks[digest] = block
                if parent:
                    self.blocks[parent].children += 1
            block.used = self.clock
            block.pins += 1
            chain.append(block)
            parent = digest
        return chain, hits, removed

    def _evict(self, removed):
        leaves = [b for b in self.blocks.values() if not b.children and not b.pins]
        if not leaves:
            return False
        block = min(leaves, key=lambda b: (b.used, -b.number))
        del self.blocks[block.digest]
        if block.parent:
            self.blocks[block.parent].children -= 1
        self.free.append(block.number)
        removed.append(block)
        return True

    @staticmethod
    def release(chain):
        for block in chain:
            block.pins -= 1

    def clear(self):
        pinned = any(b.pins for b in self.blocks.values())
        if not pinned:
            self.blocks.clear()
            self.free = list(range(self.capacity))[::-1]
        return not pinned
