"""How much one control plane holds: a thousand endpoints with ten thousand pods, which only pretend.

    python -m bench.scale [--endpoints 1000] [--pods 10000] [--json]

On the cluster of KUBECONFIG, which needs kwok and its nodes, or on one of its own, which it takes down
afterwards. Real are the API server, its controllers, the scheduler, the control planes (two, with a Lease,
by the token of a service account) and one Envoy; pods and their nodes are kwok's: they say that they are
ready and run nothing. Two more Envoys are clients of ours that speak xDS as Envoy does, since they can tell
when what came. All of them reach the control plane through a port that leads to
whichever one serves. On a machine of few cores the API server, etcd and the kubelets' pretence would leave
the control plane a tenth of one; elsewhere it does not share a node with them. So the control planes and the
measurer come first (niceness -10, of their sessions too) where we may say so: the first figure tells.

What is measured, in this order, on one cluster:
- it is filled: from the event that shows the control plane a pod that is ready until a client has its
  assignment, for each pod and client by itself. Control planes reach the API server through a port of ours,
  which sees that event pass. What it is from the event of our own watch, which is served at another time, is
  told too;
- the control plane is started anew: until every client, and Envoy by its own statistics, has all pods;
- rest: CPU by the process's own times, API requests as the API server counts them; without anybody's
  statistics, then with those of the Envoy, whose intake is the difference;
- pods are deleted at a steady pace, and their ReplicaSets make others; the same is timed;
- pods stop answering at the same pace and answer again, as kubelets say it: as many come a second as go,
  however many a cluster can make; the same is timed;
- more endpoints at once, while another account asks for a small object twenty times a second;
- the leader is killed, and an endpoint's range changed right after: until its Deployment is.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path

from bench.rig import machine
from bench.scale.run import Size, measure
from deploy.cluster import lifecycle
from deploy.cluster.config import kubeconfig
from deploy.cluster.place import here

FAKE_NODES = 4
GARBAGE = "400"  # of the API server and its controllers, which spend a quarter of their time on it else
INSIDE = "TRIMTAB_BENCH_INSIDE"  # of the cluster's network: the API server and we speak without a forward


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="bench.scale", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--endpoints", type=int, default=1_000)
    parser.add_argument("--pods", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=2, help="pretended Envoys")
    parser.add_argument("--no-envoy", action="store_true", help="without the real one")
    parser.add_argument("--churn", type=float, default=50.0, help="pods that come and go in a second")
    parser.add_argument("--churn-s", type=float, default=30.0, help="for how long")
    parser.add_argument("--rest-s", type=float, default=60.0, help="how long rest is looked at")
    parser.add_argument("--calm-s", type=float, default=20.0, help="before anything is called at rest")
    parser.add_argument("--burst", type=int, default=200, help="endpoints at once")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    _enter_a_cluster()
    size = Size(
        asked.endpoints,
        asked.pods,
        asked.clients,
        not asked.no_envoy,
        asked.churn,
        asked.churn_s,
        asked.rest_s,
        asked.burst,
        asked.calm_s,
    )
    with tempfile.TemporaryDirectory(prefix="trimtab-scale-") as folder:
        figures = asyncio.run(measure(size, Path(folder), Path(os.environ["KUBECONFIG"])))
    if asked.json:
        print(json.dumps({"schema_version": 1, "figures": [f.plain() for f in figures], **machine()}))
        return
    print(f"{size.endpoints} endpoints, {size.whole} pods")
    for figure in figures:
        print(figure.line())


def _enter_a_cluster() -> None:
    """Returns once we are in one's network, or where KUBECONFIG names one that is not this checkout's."""
    again = [sys.executable, "-P", "-m", "bench.scale", *sys.argv[1:]]
    if "KUBECONFIG" not in os.environ:
        os.environ.setdefault("GOGC", GARBAGE)
        words = ["with", "--nodes", "1", "--fake-nodes", str(FAKE_NODES)]
        os.execv(sys.executable, [sys.executable, "-P", "-m", "deploy.cluster", *words, *again])
    if os.environ["KUBECONFIG"] == str(here().kubeconfig) and INSIDE not in os.environ:
        process = lifecycle.first_process(here())
        inner = {"KUBECONFIG": str(kubeconfig(here(), "admin")), INSIDE: "1"}
        enter = ["nsenter", f"--target={process}", "--net", *again]
        os.execvpe(enter[0], enter, os.environ | inner)


if __name__ == "__main__":
    main()
