"""The four types of resource that we serve, by type URL, in the order in which additions go out."""

from __future__ import annotations

CLUSTERS = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
ASSIGNMENTS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENERS = "type.googleapis.com/envoy.config.listener.v3.Listener"
ROUTES = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"

ADDITION_ORDER = (CLUSTERS, ASSIGNMENTS, LISTENERS, ROUTES)

# Types of which an empty subscription means "all of them", and of which a state-of-the-world
# response always holds all: what is missing from it is gone.
FULL_STATE = frozenset({CLUSTERS, LISTENERS})

# How people call them, in status and in the control API.
SHORT = {CLUSTERS: "clusters", ASSIGNMENTS: "endpoints", LISTENERS: "listeners", ROUTES: "routes"}
