"""A Flask application under waitress: eight threads in one process, or in `--workers` processes. Clients ask for three pages, one of which sleeps for 20 ms."""
import logging
import random
import threading
import time

import flask
import local_clients
import pair
import shop
import waitress

THREADS = 8
app = flask.Flask(__name__)


@app.get("/recommend")
def page_recommend():
    return flask.jsonify(shop.recommend(random.randrange(1000)))


@app.get("/order")
def page_order():
    time.sleep(0.02)
    return flask.jsonify(ok=True)


@app.get("/export")
def page_export():
    return shop.export()


def serve(listening, threads):
    waitress.create_server(app, sockets=[listening], threads=threads).run()


if __name__ == "__main__":
    # It warns of each request that has to wait.
    logging.getLogger("waitress").setLevel(logging.ERROR)
    listening = local_clients.listen(pair.WORKERS if pair.PROCESSES else 1)
    answers = local_clients.start(listening, ("recommend", "order", "export"))
    if pair.PROCESSES:
        for one in listening:
            pair.forked(serve, one, THREADS // pair.WORKERS)
    else:
        threading.Thread(target=serve, args=(listening[0], THREADS), name="server", daemon=True).start()
    while not answers():
        time.sleep(0.01)
    pair.stay(answers)
