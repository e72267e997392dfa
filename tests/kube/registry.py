"""A registry with one image, for nodes that pull: python registry.py PORT ARCHIVE [USER:PASSWORD].

The archive is Docker's, with one layer. It listens on loopback alone, which containerd asks without TLS.
With a password it gives nothing to those who do not show it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import tarfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def blobs_of(archive: str) -> tuple[bytes, dict[str, bytes]]:
    """The manifest, and what it refers to, by digest."""
    with tarfile.open(archive) as tar:
        config, layer = (tar.extractfile(name).read() for name in ("config.json", "layer.tar"))  # type: ignore[union-attr]
    kinds = {
        "application/vnd.oci.image.config.v1+json": config,
        "application/vnd.oci.image.layer.v1.tar": layer,
    }
    told = [{"mediaType": kind, "digest": digest(blob), "size": len(blob)} for kind, blob in kinds.items()]
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": told[0], "layers": told[1:]}
    return json.dumps(manifest).encode(), {digest(blob): blob for blob in kinds.values()}


def digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def serve(port: int, archive: str, credentials: str = "") -> None:
    manifest, blobs = blobs_of(archive)
    shown = f"Basic {base64.b64encode(credentials.encode()).decode()}" if credentials else None

    class Registry(BaseHTTPRequestHandler):
        default_request_version = "HTTP/1.0"  # who tries TLS first is told that this is not it

        def do_GET(self) -> None:
            if shown not in (None, self.headers.get("Authorization")):
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="registry"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            what = self.path.rpartition("/")[2]
            known = blobs.get(what) or (manifest if "/manifests/" in self.path else b"")
            self.send_response(200 if known or self.path == "/v2/" else 404)
            self.send_header("Content-Type", MANIFEST if known is manifest else "application/octet-stream")
            self.send_header("Docker-Content-Digest", digest(known))
            self.send_header("Content-Length", str(len(known)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(known)

        do_HEAD = do_GET  # noqa: N815

    ThreadingHTTPServer(("127.0.0.1", port), Registry).serve_forever()


if __name__ == "__main__":
    serve(int(sys.argv[1]), *sys.argv[2:])
