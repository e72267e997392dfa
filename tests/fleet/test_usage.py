"""Memory that forked processes share is counted once."""

from __future__ import annotations

import subprocess
import sys
import time

from trimtab.fleet.usage import Meter, held_bytes, sessions

MIB = 1 << 20
FORKS = """
import os, sys, time
held = bytearray(os.urandom(1 << 20)) * 100
if os.fork() == 0:
    time.sleep(600)
print("forked", flush=True)
time.sleep(600)
"""


def test_pages_shared_by_a_fork_are_counted_once():
    command = [sys.executable, "-S", "-c", FORKS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as parent:
        try:
            assert parent.stdout.readline() == b"forked\n"
            usage = Meter().read([parent.pid], 0.0)[parent.pid]
            assert len(usage.processes) == 2
            assert 100 * MIB <= usage.memory_bytes < 150 * MIB  # the plain sum would be above 200
            assert 100 * MIB <= held_bytes(usage.processes) < 150 * MIB
        finally:
            for process in sessions([parent.pid])[parent.pid]:
                subprocess.run(["kill", "-9", str(process)], check=False)


def test_each_member_of_a_session_is_found_without_its_ancestry():
    script = "sleep 600 & sleep 600 & wait"
    with subprocess.Popen(["sh", "-c", script], start_new_session=True) as leader:
        try:
            meter = Meter()
            while True:  # one that becomes another program has no memory for a moment
                usage = meter.read([leader.pid], 0.0)[leader.pid]
                if len(usage.processes) == 3 and usage.memory_bytes:
                    break
                assert leader.poll() is None
                time.sleep(0.01)
        finally:
            for process in sessions([leader.pid])[leader.pid]:
                subprocess.run(["kill", "-9", str(process)], check=False)


def test_the_gpus_that_a_pod_was_started_with_and_when_it_was_measured():
    for value, named in (("0, GPU-1a ,", ("0", "GPU-1a")), ("", ()), (None, ())):
        env = {} if value is None else {"CUDA_VISIBLE_DEVICES": value}
        with subprocess.Popen(["sleep", "600"], env=env, start_new_session=True) as leader:
            try:
                usage = Meter().read([leader.pid], 7.5)[leader.pid]
                assert usage.gpus == named
                assert usage.at_s == 7.5
            finally:
                leader.kill()
