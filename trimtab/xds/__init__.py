"""Endpoints → Envoy resources → snapshot → one ADS stream per Envoy.

world          what one Envoy should know, in our words
check          what would make a world unbuildable
clusters, assignments, routes, listeners   its resources (pure)
shares         a limit shared out over several Envoys (pure)
snapshot       all resources of a world, each with a version that is its content's hash
subscription   what one stream was told and has confirmed, one type at a time (pure)
stream         the order in which changes go out: make before break (pure)
server         the gRPC adapter: many streams, one published snapshot
"""
