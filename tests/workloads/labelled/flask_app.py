"""A Flask application under waitress: eight threads in one process, or in `--workers` processes. Nine clients ask for three pages, one of which sleeps for 20 ms."""
import json
import os
import random
import select
import socket
import threading
import time
import zlib

import flask
import pair
import waitress

THREADS, CLIENTS = 8, 9
CATALOG = [{"id": i, "name": "item %d" % i, "price": (i * 7919) % 1000 / 10, "tags": ["a%d" % (i % 7), "b%d" % (i % 11)]} for i in range(1000)]
PAGES = ("recommend", "order", "export")
app = flask.Flask(__name__)


def recommend(user):
    scores = []
    for item in CATALOG:
        score = 0.0
        for tag in item["tags"]:
            score += (hash(tag) ^ user) % 97
        scores.append((score / (1 + item["price"]), item["id"]))
    scores.sort(reverse=True)
    return scores[:10]


@app.get("/recommend")
def page_recommend():
    return flask.jsonify(recommend(random.randrange(1000)))


@app.get("/order")
def page_order():
    time.sleep(0.02)
    return flask.jsonify(ok=True)


@app.get("/export")
def page_export():
    return zlib.compress(json.dumps(CATALOG).encode())


def serve(listening, threads):
    waitress.create_server(app, sockets=[listening], threads=threads).run()


def client(port, counts):
    """Sends the next request of a connection as soon as the last one is answered. One process for all connections, and little work, as a server's clients are elsewhere."""
    os.nice(5)
    waiting, done = select.poll(), 0
    connections = {}
    for n in range(CLIENTS):
        connection = socket.create_connection(("127.0.0.1", port))
        connections[connection.fileno()] = connection, b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n" % PAGES[n % len(PAGES)].encode(), bytearray()
        waiting.register(connection, select.POLLIN)
        connection.sendall(connections[connection.fileno()][1])
    while True:
        for number, _ in waiting.poll():
            connection, request, answer = connections[number]
            answer += connection.recv(1 << 16)
            head = answer.find(b"\r\n\r\n")
            if head < 0:
                continue
            length = answer.lower().split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0]
            if len(answer) < head + 4 + int(length):
                continue
            answer.clear()
            connection.sendall(request)
            done += 1
            counts.set(0, done)


def forked(work, *arguments):
    parent = os.getpid()
    if os.fork() == 0:
        pair.end_with_parent()
        if os.getppid() == parent:
            work(*arguments)
        os._exit(0)


if __name__ == "__main__":
    listening = socket.create_server(("127.0.0.1", 0), backlog=64)
    counts, port = pair.Counts(1), listening.getsockname()[1]
    forked(client, port, counts)
    if pair.PROCESSES:
        for _ in range(pair.WORKERS):
            forked(serve, listening, THREADS // pair.WORKERS)
    else:
        threading.Thread(target=serve, args=(listening, THREADS), name="server", daemon=True).start()
    while not counts.sum():
        time.sleep(0.01)
    pair.stay(counts.sum)
