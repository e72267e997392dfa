"""Calls a URL, so many at once, until SIGTERM; then tells as JSON what was answered, and by which pods.

Before that there is a line with the number of answers, each time ten more have come. What had none, as
no connection could be made, is told under the name of its error, and is none.

python caller.py URL AT_ONCE [BODY [HEADERS]]

HEADERS are more of them, as JSON. Over TLS it believes the authorities of SSL_CERT_FILE, for the name CALLED.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter

import aiohttp

JSON = {"Content-Type": "application/json"}


async def call(url: str, at_once: int, body: str, headers: str) -> dict[str, Counter[str]]:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    statuses: Counter[str] = Counter()
    told, name = JSON | json.loads(headers), os.environ.get("CALLED")
    pods: Counter[str] = Counter()

    async def one(session: aiohttp.ClientSession) -> None:
        while not ended.is_set():
            try:
                async with session.post(url, data=body, headers=told, server_hostname=name) as answer:
                    text = await answer.text()
                    statuses[str(answer.status)] += 1
                    pods[text.strip()] += 1
                    if pods.total() % 10 == 0:
                        sys.stdout.write(f"{pods.total()}\n")
                        sys.stdout.flush()
            except aiohttp.ClientError as error:
                statuses[type(error).__name__] += 1
            await asyncio.sleep(0.01)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(one(session) for _ in range(at_once)))
    return {"statuses": statuses, "pods": pods}


if __name__ == "__main__":
    given = dict(enumerate(sys.argv))
    found = asyncio.run(call(given[1], int(given[2]), given.get(3, "{}"), given.get(4, "{}")))
    sys.stdout.write(json.dumps(found))
