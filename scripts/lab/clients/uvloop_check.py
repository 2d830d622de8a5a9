#!/usr/bin/env python3
"""Clients on uvloop that know every answer. `echo`: an echo server; `redis` and `order`: redis.asyncio; `postgres`: asyncpg.

Prints `N answers right` (status 0), or what is wrong (status 1).
"""
import argparse
import asyncio
import os
import random
import sys
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from lab.clients import echo_check, redis_check  # noqa: E402
from lab.clients.resp import Wrong  # noqa: E402
from lab.sql_script import first_difference, random_script  # noqa: E402


def expect(what, got, expected):
    if got != expected:
        raise Wrong(f"{what}: expected {redis_check.short(expected)}, got {redis_check.short(got)}")


async def echo(options):
    options.rounds, options.largest = options.count, 300_000
    await echo_check._asyncio(options.path, options)
    return options.connections * options.count


# ---- redis.asyncio

async def _redis_answer(connection):
    import redis
    try:
        return await connection.read_response()
    except redis.ResponseError as problem:
        return ("error", str(problem))


async def _redis_conversation(pool, seed, count):
    connection = await pool.get_connection()
    rng = random.Random(seed)
    model = redis_check.Model(rng, f"u{os.getpid()}.{seed}", 300_000)
    done = 0
    while done < count:
        batch = [model.next() for _ in range(1 if rng.random() < 0.8 else rng.randint(2, 50))]
        await connection.send_packed_command(connection.pack_commands([words for words, _ in batch]))
        for words, expected in batch:
            got = await _redis_answer(connection)
            if isinstance(expected, tuple):
                expect(words[0], got[0] if isinstance(got, tuple) else got, "error")
            else:
                expect(f"{words[0]} {words[1]}", got, expected)
        done += len(batch)
    await pool.release(connection)
    return done


async def _redis_sleeper(client):
    """A connection that waits in the server, and a subscription."""
    for number in range(20):
        answer = asyncio.create_task(client.blpop("u:wait", timeout=20))
        await asyncio.sleep(0.001 * (number % 3))
        await client.rpush("u:wait", f"item {number}")
        expect("BLPOP", await answer, (b"u:wait", f"item {number}".encode()))
    async with client.pubsub() as pubsub:
        await pubsub.subscribe("u:news")
        messages = pubsub.listen()
        await anext(messages)
        for number in range(20):
            await client.publish("u:news", f"news {number}")
        expect("SUBSCRIBE", [(await anext(messages))["data"] for _ in range(20)], [f"news {number}".encode() for number in range(20)])
    return 40


async def redis(options):
    from redis import asyncio as library
    client = library.Redis(unix_socket_path=options.path, protocol=2)
    done = await asyncio.gather(*(_redis_conversation(client.connection_pool, seed, options.count) for seed in range(options.connections)))
    right = sum(done) + await _redis_sleeper(client)
    await client.aclose()
    return right


async def order(options):
    """Who has subscribed on a young connection, and then publishes on an old one, is told: nobody waits for the subscription's answer."""
    from redis import asyncio as library
    client = library.Redis(unix_socket_path=options.path, protocol=2)
    for number in range(1000):
        await client.set("u:old", number)
    for number in range(options.count):
        async with client.pubsub() as pubsub:
            await pubsub.subscribe(f"u:{number}")
            expect("PUBLISH", await client.publish(f"u:{number}", "x"), 1)
    await client.aclose()
    return options.count


# ---- asyncpg

async def _postgres_conversation(pool, seed, count):
    script, answers = random_script(seed, count, largest=300_000)
    async with pool.acquire() as connection:
        for statement, answer in zip(script.decode().splitlines(), answers.decode().splitlines()):
            got = str(await connection.fetchval(statement))
            if got != answer:
                raise Wrong(f"{statement[:80]}: {first_difference(got, answer)}")
    return count


async def _postgres_details(pool):
    """Arguments, rows, bulk loading, an error, a statement that is cancelled, a notification."""
    import asyncpg
    async with pool.acquire() as connection:
        data = random.Random(5).randbytes(500_000)
        expect("an argument", await connection.fetchval("select $1::bytea || $2::bytea", data, b"end"), data + b"end")
        rows = [(number, f"row {number} " + "abc" * (number % 50)) for number in range(5000)]
        await connection.execute("create temporary table bulk (id int, word text)")
        await connection.copy_records_to_table("bulk", records=rows)
        expect("rows", [tuple(row) for row in await connection.fetch("select id, word from bulk order by id")], rows)
        async with connection.transaction():
            told = [tuple(row) async for row in connection.cursor("select id, word from bulk order by id", prefetch=100)]
        expect("rows by a cursor", told, rows)
        try:
            await connection.fetchval("select 1/0")
        except asyncpg.DivisionByZeroError:
            expect("after an error", await connection.fetchval("select 7"), 7)
        else:
            raise Wrong("no error")
        try:
            await connection.fetchval("select pg_sleep(60)", timeout=0.3)
        except asyncio.TimeoutError:
            expect("after a statement that was cancelled", await connection.fetchval("select 8"), 8)
        else:
            raise Wrong("no timeout")
        heard = asyncio.get_running_loop().create_future()
        await connection.add_listener("news", lambda *words: heard.set_result(words[3]))
        async with pool.acquire() as other:
            await other.execute("notify news, 'hello'")
        expect("a notification", await asyncio.wait_for(heard, 20), "hello")
        await connection.reset()
    return 8


async def postgres(options):
    import asyncpg
    async with asyncpg.create_pool(host=options.path, user="postgres", database="postgres", min_size=options.connections,
                                   max_size=options.connections) as pool:
        done = await asyncio.gather(*(_postgres_conversation(pool, seed, options.count) for seed in range(options.connections)))
        return sum(done) + await _postgres_details(pool)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("echo", "redis", "order", "postgres"))
    parser.add_argument("path", help="a socket, or PostgreSQL's directory of sockets")
    parser.add_argument("--connections", type=int, default=5)
    parser.add_argument("--count", type=int, default=60, help="how many answers on each connection, at least")
    options = parser.parse_args()
    try:
        print(f"{uvloop.run({'echo': echo, 'redis': redis, 'order': order, 'postgres': postgres}[options.what](options))} answers right")
    except Wrong as wrong:
        print(f"wrong: {wrong}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
