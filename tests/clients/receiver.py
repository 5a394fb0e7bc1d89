"""A receiver of notifications for the journeys: it keeps what it is sent."""

import http.server
import json
import threading
import time


class Receiver:
    """Listens on a free port of this machine until the journey ends."""

    def __init__(self):
        self.got = []
        got = self.got

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                got.append((self.path, headers, json.loads(body)))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_port}"

    def wait_for(self, path, count, patience_secs=30):
        """What came for a path, when there is so much of it or the time is
        over."""
        end = time.monotonic() + patience_secs
        while True:
            found = [document for where, _, document in self.got if where == path]
            if len(found) >= count or time.monotonic() > end:
                return found
            time.sleep(0.02)
