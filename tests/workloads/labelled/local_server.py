"""A local HTTP server in a process of its own: the other side of a workload that waits for replies. It answers each request with the same body after a pause."""
import http.server
import os
import time

import pair


def start(pause, body):
    """Starts it; it ends with this process. Returns its port."""
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            time.sleep(pause)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    class Server(http.server.ThreadingHTTPServer):
        request_queue_size = 200

    there, here = os.pipe()
    parent = os.getpid()
    if os.fork() == 0:
        pair.end_with_parent()
        serving = Server(("127.0.0.1", 0), Handler)
        os.write(here, b"%d\n" % serving.server_port)
        if os.getppid() == parent:
            serving.serve_forever()
        os._exit(0)
    return int(os.read(there, 16))
