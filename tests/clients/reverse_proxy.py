"""A reverse proxy for the journeys: it serves under a path, ends TLS, and keeps what passed."""

import http.client
import http.server
import ssl
import threading
import urllib.parse

# What a proxy says for itself, whatever a client says.
OWN = {"connection", "keep-alive", "transfer-encoding", "host", "content-length"}


class ReverseProxy:
    """Passes requests on to a server, from a free port of this machine, until the journey ends.

    `prefix` is the path under which the server is; with `cuts` the proxy takes it off and names it in a header.
    `certificate` is a pair of files; with it, clients speak TLS.
    """

    def __init__(self, server, prefix="", cuts=False, certificate=None):
        # A method, a path, the status and the headers of the answer for each request.
        self.passed = []
        self.refused = []
        target = urllib.parse.urlsplit(server)
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                path, headers = self.path, proxy._headers(self.headers, self.client_address[0])
                if not (path + "/").startswith(prefix + "/") and not path.startswith(prefix + "?"):
                    proxy.refused.append(path)
                    return self.answer(404, "Not Found", [], b"no such path on this proxy")
                if cuts:
                    path = path[len(prefix) :]
                    path = path if path.startswith("/") else "/" + path
                    headers["X-Forwarded-Prefix"] = prefix
                connection = http.client.HTTPConnection(target.hostname, target.port, timeout=60)
                connection.request(self.command, path, body, headers)
                answer = connection.getresponse()
                content = answer.read()
                connection.close()
                proxy.passed.append((self.command, self.path, answer.status, dict(answer.getheaders())))
                self.answer(answer.status, answer.reason, answer.getheaders(), content)

            do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = do_OPTIONS = handle_one

            def answer(self, status, reason, headers, content):
                self.send_response_only(status, reason)
                for name, value in headers:
                    if name.lower() not in OWN:
                        self.send_header(name, value)
                if status != 204:
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            def log_message(self, *_):
                pass

        listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.scheme = "https" if certificate else "http"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            listener.socket = context.wrap_socket(listener.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        self.host = f"127.0.0.1:{listener.server_port}"
        self.url = f"{self.scheme}://{self.host}{prefix}"

    def _headers(self, said, client):
        """The headers of a request, without those that only this proxy may say."""
        kept = {
            name: value
            for name, value in said.items()
            if name.lower() not in OWN and not name.lower().startswith("x-forwarded-")
        }
        return {
            **kept,
            "X-Forwarded-For": client,
            "X-Forwarded-Proto": self.scheme,
            "X-Forwarded-Host": self.host,
        }
