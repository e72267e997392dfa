"""A model server in miniature: PORT STAGES BEHAVIOUR. Answers /ready once it is; misbehaves as told."""

import http.server
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PORT, STAGES, BEHAVIOUR = int(sys.argv[1]), sys.argv[2], sys.argv[3]
eaten = []


def say(text):
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def stage(name):
    with Path(STAGES).open("a") as file:
        file.write(json.dumps({"stage": name, "at_s": time.time(), "more": "ignored"}) + "\n")


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/exit":
            os._exit(7)
        if self.path == "/eat":
            eaten.append(bytearray(os.urandom(1 << 20)) * 160)
        if self.path == "/noise":
            for number in range(200_000):
                sys.stdout.write(f"line {number} {'x' * 90}\n")
            sys.stdout.flush()
        if self.path == "/lose-worker":
            self.server.lost = subprocess.Popen(["true"])  # nobody asks after it
        if self.path == "/deaf":
            self.server.socket.close()
        if self.path in ("/paused", "/sick", "/frozen", "/loops"):
            setattr(self.server, self.path[1:], True)
        if self.path == "/env":
            say(f"ENV {json.dumps(dict(os.environ))}")
        sick = self.path.startswith("/live") and getattr(self.server, "sick", False)
        self.send_response(503 if sick else 200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


stage("import")
say("starting")
if BEHAVIOUR == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if BEHAVIOUR == "family":
    subprocess.Popen(["sleep", "600"])
    subprocess.Popen(["sleep", "600"], start_new_session=True)
stage("load")
if BEHAVIOUR == "crash":
    raise ValueError("bad weights")
if BEHAVIOUR == "hang":
    time.sleep(600)
server = http.server.HTTPServer(("127.0.0.1", PORT), Handler)
say("ready to serve")
while server.fileno() >= 0:
    server.handle_request()
    while getattr(server, "paused", False) and not Path(STAGES).with_name("go-on").exists():
        time.sleep(0.01)
    server.paused = False
    if getattr(server, "frozen", False):
        signal.pause()
    while getattr(server, "loops", False):
        pass
time.sleep(600)
