"""Build our images into the user's cache.

python -m deploy.images build           prints, for each, its name and its archive
python -m deploy.images context FOLDER  writes what the Dockerfiles copy, for a builder of your own
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from deploy.cluster.errors import ClusterError
from deploy.images import build, context


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="deploy.images", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="what", required=True)
    commands.add_parser("build")
    commands.add_parser("context").add_argument("folder", type=Path)
    asked = parser.parse_args()
    try:
        if asked.what == "build":
            for built in build.build():
                sys.stdout.write(f"{built.name} {built.archive}\n")
        else:
            asked.folder.mkdir(parents=True)
            context.write(asked.folder)
    except ClusterError as error:
        sys.stderr.write(f"error: {error}\nhint: {error.hint}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
