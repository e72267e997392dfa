"""The `trimtab` command: a client of the control API, and the way to start the platform.

Data goes to stdout, all else to stderr. Exit statuses are those of `core.errors`, and 2 for a
command line that cannot be read, 130 after Ctrl-C.
"""
