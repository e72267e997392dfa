"""python -m trimtab.envoy --node NAME --control HOST:PORT --folder FOLDER [--tls …] [--callers-tls …]

Writes FOLDER/bootstrap.json for an Envoy that runs elsewhere, in a pod for example, and beside it where that
finds certificates; it will be administered by FOLDER/admin.sock.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from trimtab.core.errors import TrimtabError
from trimtab.envoy.bootstrap import Bootstrap, render
from trimtab.envoy.secrets import file_of, secrets
from trimtab.host.files import write_whole


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(
        prog="trimtab.envoy", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--node", required=True, help="what this Envoy calls itself")
    parser.add_argument("--control", required=True, type=_address, metavar="HOST:PORT")
    parser.add_argument("--folder", required=True, type=Path, help="that both of them see")
    parser.add_argument("--tls", type=Path, metavar="FOLDER", help="with tls.crt, tls.key and ca.crt")
    parser.add_argument(
        "--callers-tls", type=Path, metavar="FOLDER", help="with tls.crt and tls.key, which callers are shown"
    )
    asked = parser.parse_args(argv)
    try:
        content = render(Bootstrap.for_pod(asked.node, asked.folder, asked.control, asked.tls))
        for name, secret in secrets(asked.tls, asked.control[0], asked.callers_tls).items():
            write_whole(file_of(asked.folder, name), json.dumps(secret, indent=2).encode())
        write_whole(asked.folder / "bootstrap.json", content)
    except TrimtabError as error:
        sys.stderr.write(f"error: {error}\nhint: {error.hint}\n")
        return error.exit_status
    return 0


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise argparse.ArgumentTypeError(f"`{text}` is not HOST:PORT")
    return host, int(port)


if __name__ == "__main__":
    sys.exit(main())
