"""Signals in, decisions out. Pure: no clock, no randomness, no I/O, no logging.

`horizontal` decides how many pods, `vertical` how many requests one pod may hold, and `simulator`
judges both against other autoscalers.
"""
