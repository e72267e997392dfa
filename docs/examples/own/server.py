"""A model server of one's own, with nothing but Python: `trimtab deploy docs/examples --command …`.

It is told its port by $PORT, says at /ping that it is ready, and speaks MLflow's scoring protocol.
"""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Doubles(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(200 if self.path == "/ping" else 404, {})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.answer(200, {"predictions": [[2 * value for value in row] for row in asked["inputs"]]})


ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Doubles).serve_forever()
