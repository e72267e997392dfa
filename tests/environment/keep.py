"""A control plane's keeper alone, for a test to kill: `python keep.py HOME MODEL_FOLDER`."""

import asyncio
import sys
from pathlib import Path

from trimtab.environment.keeper import Asked, Keeper


async def main(home: Path, model_folder: Path) -> None:
    keeper = Keeper(home)
    keeper.place(Asked("d", "uv"), model_folder)
    await keeper.run()


asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
