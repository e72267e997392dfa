"""python -m trimtab.modelcache --folder FOLDER --size BYTES [--listen HOST:PORT]

Keeps models for the pods of its node, as a pod itself. Its files may go at any time: then pods fetch anew.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web

from trimtab.core.clock import SystemClock
from trimtab.core.errors import TrimtabError
from trimtab.kube import Api
from trimtab.modelcache.server import Server, token_reviews
from trimtab.modelcache.shelf import Shelf
from trimtab.modelcache.words import PORT

ENDS_WITHIN_S = 20.0  # what is under way
_BYTES = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "": 1}


def main(argv: Sequence[str] | None = None) -> int:
    """Until it is told to end."""
    asked = _arguments().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    try:
        asyncio.run(_serve(asked.folder, asked.size, asked.listen))
    except TrimtabError as error:
        sys.stderr.write(f"error: {error}; hint: {error.hint}\n")
        return error.exit_status
    return 0


async def _serve(folder: Path, size: int, listen: tuple[str, int]) -> None:
    clock = SystemClock()
    shelf = Shelf(folder, size, clock)
    shelf.open()
    api = await Api.connect("trimtab-model-cache")
    ended = asyncio.Event()
    for told in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(told, ended.set)
    app = Server(shelf, token_reviews(api), clock).app()
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=ENDS_WITHIN_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, *listen).start()
        logging.info("keeps up to %d bytes in %s, and has %d", size, folder, shelf.bytes)
        await ended.wait()
    finally:
        await runner.cleanup()
        await api.close()


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trimtab.modelcache", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--folder", required=True, type=Path, help="of its files")
    parser.add_argument("--size", required=True, type=_size, help="how much of it, such as 20Gi")
    parser.add_argument("--listen", default=("0.0.0.0", PORT), type=_address, help="HOST:PORT")  # noqa: S104
    return parser


def _size(text: str) -> int:
    digits = text.rstrip("KMGTi")
    unit = text.removeprefix(digits)
    if not digits.isdecimal() or unit not in _BYTES:
        raise argparse.ArgumentTypeError(f"`{text}` is no size: write 500Mi or 20Gi")
    return int(digits) * _BYTES[unit]


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise argparse.ArgumentTypeError(f"`{text}` is no address: write HOST:PORT")
    return host, int(port)


if __name__ == "__main__":
    sys.exit(main())
