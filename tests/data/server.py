"""A small HTTP server on 127.0.0.1 that serves parts of files, counts what it sends, and misbehaves when told to."""

import re
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Served(ThreadingHTTPServer):
    """Serves `folder` at `address`; `mood` is what it does from now on.

    Moods: `well`; `silent` reads the request and never answers; `404`; `503`; `dies` closes the connection half way;
    `redirects` sends everybody to an address that does not exist.

    Whatever else goes wrong while a request is answered is raised by `stop`, not printed by a thread of the server.
    """

    daemon_threads = True

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.mood = folder, "well"
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.over, self.failures = threading.Event(), []
        self.forget()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def forget(self):
        self.asked, self.sent, self.connections = [], 0, set()

    def stop(self):
        """No connection is answered, or taken, any more."""
        self.mood = "dies"
        self.over.set()
        self.shutdown()
        self.server_close()
        if self.failures:
            raise self.failures[0]

    def handle_error(self, request, client_address):
        self.failures.append(sys.exception())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open, as those of any real server

    def do_HEAD(self):
        self._answer(None)

    def do_GET(self):
        self._answer(self.wfile)

    def _answer(self, body):
        mood, server = self.server.mood, self.server
        server.asked.append((self.command, self.path))
        server.connections.add(self.client_address[1])
        if mood == "silent":
            server.over.wait(60)
            self.close_connection = True
            return
        file = server.folder / self.path.lstrip("/")
        if mood in ("404", "503", "redirects") or not file.is_file():
            self.send_response({"503": 503, "redirects": 302}.get(mood, 404))
            if mood == "redirects":
                self.send_header("Location", "http://elsewhere.invalid/a.tif")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = file.read_bytes()
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        begin, end = (int(part[1]), min(len(data), int(part[2] or len(data)) + 1)) if part else (0, len(data))
        self.send_response(206 if part else 200)
        if part:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(data)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(end - begin))
        self.end_headers()
        if mood == "dies":
            end = (begin + end) // 2
            self.close_connection = True
        if body is not None:
            server.sent += end - begin  # before it is: whoever reads it may look at once
            body.write(data[begin:end])

    def handle(self):
        with suppress(ConnectionError):  # whoever asked has gone
            super().handle()

    def log_message(self, *_):
        pass
