"""A hub on this machine: one dataset repository at one revision, over the hub's own protocol."""

import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit


class Hub(ThreadingHTTPServer):
    """Serves `files` of a dataset `repository` at `revision`.

    Attributes:
        breaks: how many downloads are to be cut off near the end.
        ranges: the Range headers that downloads came with.
    """

    def __init__(self, repository, revision, files, breaks=0):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repository, self.revision, self.files = repository, revision, files
        self.breaks, self.ranges = breaks, []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    @contextmanager
    def running(self):
        thread = Thread(target=self.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            thread.join()
            self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        hub, path = self.server, urlsplit(self.path).path
        api = f"/api/datasets/{hub.repository}"
        content = f"/datasets/{hub.repository}/resolve/{hub.revision}/"
        if path == f"{api}/revision/{hub.revision}":
            siblings = [{"rfilename": name} for name in hub.files]
            self._json({"id": hub.repository, "sha": hub.revision, "siblings": siblings})
        elif path.startswith(f"{api}/tree/{hub.revision}"):
            folder = path.removeprefix(f"{api}/tree/{hub.revision}").strip("/")
            self._json([self._entry(name) for name in hub.files if name.startswith(folder)])
        elif path.removeprefix(content) in hub.files:
            self._file(hub.files[path.removeprefix(content)])
        else:
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})

    do_HEAD = do_GET

    def do_POST(self):
        asked = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())["paths"]
        self._json([self._entry(name) for name in asked if name in self.server.files])

    def _entry(self, name):
        size = len(self.server.files[name])
        return {"type": "file", "path": name, "size": size, "oid": "0" * 40}

    def _json(self, value):
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _file(self, data):
        hub, start = self.server, 0
        headers = {"ETag": '"one"', "X-Repo-Commit": hub.revision, "Accept-Ranges": "bytes"}
        if self.command == "GET":
            hub.ranges.append(self.headers["Range"])
        if asked := self.headers["Range"]:
            start = int(asked.removeprefix("bytes=").partition("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        cut = None
        if self.command == "GET" and hub.breaks:
            hub.breaks, cut = hub.breaks - 1, len(data) * 9 // 10
        self._answer(206 if asked else 200, data[start:], headers, cut)

    def _answer(self, code, body, headers, cut=None):
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:cut])
        if cut is not None:
            self.close_connection = True
