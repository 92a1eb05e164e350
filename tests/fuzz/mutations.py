"""Seeded damage to a file: cuts, flipped bits, foreign bytes, huge numbers, other encodings, deep nesting."""

import random
import re
from collections.abc import Callable

Mutation = Callable[[bytes, random.Random], bytes]


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def flip_bits(data: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(data)
    for _ in range(rng.choice([1, 1, 3, 20])):
        if damaged:
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def insert_bytes(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data) + 1)
    return data[:place] + rng.randbytes(rng.choice([1, 4, 100])) + data[place:]


def overwrite_block(data: bytes, rng: random.Random) -> bytes:
    place, size = rng.randrange(len(data) + 1), rng.choice([1, 8, 64])
    return data[:place] + rng.choice([b"\0", b"\xff", b" "]) * size + data[place + size :]


def repeat_block(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    stop = start + rng.randrange(200)
    return data[:stop] + data[start:stop] * rng.choice([1, 2, 50]) + data[stop:]


def change_number(data: bytes, rng: random.Random) -> bytes:
    numbers = list(re.finditer(rb"-?\d+", data))
    if not numbers:
        return flip_bits(data, rng)
    number = rng.choice(numbers)
    values = [b"-1", b"0", b"1e999", b"nan", b"null", b"1.5", b"9" * 19, b"9" * 25, b"9" * 5000, b'"text"', b"[]", b"{}", b""]
    return data[: number.start()] + rng.choice(values) + data[number.end() :]


def drop_line(data: bytes, rng: random.Random) -> bytes:
    lines = data.split(b"\n")
    del lines[rng.randrange(len(lines))]
    return b"\n".join(lines)


def encode_otherwise(data: bytes, rng: random.Random) -> bytes:
    text = data.decode("latin-1") + "\u00e9"
    return text.encode(rng.choice(["latin-1", "utf-16", "utf-32"]))


def nest_deeply(data: bytes, rng: random.Random) -> bytes:
    return rng.choice([b"[", b'{"a":']) * 100_000


def lengthen(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data) + 1)
    return data[:place] + b"x" * 200_000 + data[place:]


MUTATIONS: tuple[Mutation, ...] = (
    cut, flip_bits, insert_bytes, overwrite_block, repeat_block, change_number, change_number, drop_line,
    encode_otherwise, nest_deeply, lengthen,
)  # fmt: skip


def damage(data: bytes, seed: object) -> bytes:
    """The data with one to three kinds of damage, the same for the same seed."""
    rng = random.Random(repr(seed))
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        data = rng.choice(MUTATIONS)(data, rng)
    return data
