"""Web requests: each worker sends them to a local server, which answers after some milliseconds."""
import http.client
import http.server
import os
import threading
import time

import pair

PAUSE = 0.004


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        time.sleep(PAUSE)
        body = b"x" * 2000
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def server():
    """In a process of its own, which ends with this one; its port."""
    there, here = os.pipe()
    parent = os.getpid()
    if os.fork() == 0:
        pair.ctypes.CDLL(None).prctl(pair.PR_SET_PDEATHSIG, pair.signal.SIGKILL)
        serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        os.write(here, b"%d\n" % serving.server_port)
        if os.getppid() == parent:
            serving.serve_forever()
        os._exit(0)
    return int(os.read(there, 16))


def unit(connection):
    connection.request("GET", "/")
    connection.getresponse().read()


PORT = server()
pair.run(unit, lambda index: http.client.HTTPConnection("127.0.0.1", PORT))
