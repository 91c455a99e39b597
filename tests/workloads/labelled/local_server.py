"""A local HTTP server in a process of its own: the other side of a workload that waits for replies. It answers each request with the same body after a pause."""
import http.server
import time

import pair


def start(pause, body):
    """Starts it; it ends with this process. Returns its port."""
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # The head and the body are two writes, of which the second would wait 40 ms for an acknowledgement.
        disable_nagle_algorithm = True

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

    serving = Server(("127.0.0.1", 0), Handler)
    pair.forked(serving.serve_forever)
    serving.server_close()
    return serving.server_port
