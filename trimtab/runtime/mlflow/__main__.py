"""`python -m trimtab.runtime.mlflow --model DIR --bind HOST:PORT --stages FILE [--threads N] [--queue N]`."""

from __future__ import annotations

import sys

from trimtab.runtime.mlflow.master import serve
from trimtab.runtime.mlflow.options import parse

if __name__ == "__main__":
    serve(parse(sys.argv[1:]))
