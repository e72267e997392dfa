"""Envoy itself: what it is told at its start, its process, and what its statistics say.

bootstrap    where its control plane is, which statistics it sends; pure
process      started, adopted, brought back, ended gracefully
admin        what the supervisor asks of a running one
intake       its statistics over OTLP, each second, as signals
otlp         messages → counts per revision; pure
statistics   counts of a whole flush → signals; pure
histogram    quantiles and sums from Envoy's histograms; pure
"""
