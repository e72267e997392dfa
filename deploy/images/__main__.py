"""Build our images into the user's cache.

python -m deploy.images build           prints, for each, its name and its archive; says why where none can be
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
        if asked.what == "build" and (reason := build.why_not()):
            sys.stderr.write(f"skipped: {reason}\n")
        elif asked.what == "build":
            for built in build.build():
                sys.stdout.write(f"{built.name} {built.archive}\n")
        else:
            context.write(asked.folder)
    except build.NoBase as error:
        sys.stderr.write(f"skipped: {error}; {error.hint}\n")
    except ClusterError as error:
        sys.stderr.write(f"error: {error}\nhint: {error.hint}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
