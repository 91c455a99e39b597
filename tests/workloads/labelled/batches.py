"""`pool.map` in batches of requests to a local server, which answers after 20 ms: the pool is of threads, or of processes. The server is Python too and shares the cores."""
import concurrent.futures
import http.server
import json
import multiprocessing
import os
import threading
import time

import pair
import requests

BATCH = 64
BODY = json.dumps([{"a": i, "b": "x" * 20} for i in range(200)]).encode()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        time.sleep(0.02)
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 200


def server():
    """In a process of its own, which ends with this one; its port."""
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


def get(n):
    return sum(one["a"] for one in requests.get("http://127.0.0.1:%d/%d" % (PORT, n)).json())


def feed(pool, done, first):
    while True:
        for _ in pool.map(get, range(BATCH)):
            done[0] += 1
        first.set()


if __name__ == "__main__":
    PORT = server()
    if pair.PROCESSES:
        fork = multiprocessing.get_context("fork")
        pool = concurrent.futures.ProcessPoolExecutor(pair.WORKERS, mp_context=fork, initializer=pair.end_with_parent)
    else:
        pool = concurrent.futures.ThreadPoolExecutor(pair.WORKERS)
    done, first = [0], threading.Event()
    threading.Thread(target=feed, args=(pool, done, first), daemon=True).start()
    first.wait()
    pair.stay(lambda: done[0])
