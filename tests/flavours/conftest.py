"""Without the packages of these models there is nothing to collect: `make test-flavours` brings them."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("torch") and find_spec("onnxruntime") else ["test_corpus.py"]
