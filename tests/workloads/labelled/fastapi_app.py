"""A FastAPI application under uvicorn, whose pages are plain functions and so run in its pool of threads: in one process, or in `--workers` processes. Clients ask for three pages, one of which sleeps for 20 ms."""
import random
import threading
import time

import fastapi
import local_clients
import pair
import shop
import uvicorn

app = fastapi.FastAPI()


@app.get("/recommend")
def page_recommend():
    return shop.recommend(random.randrange(1000))


@app.get("/order")
def page_order():
    time.sleep(0.02)
    return {"ok": True}


@app.get("/export")
def page_export():
    return fastapi.Response(shop.export())


def serve(listening):
    uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[listening])


if __name__ == "__main__":
    listening = local_clients.listen(pair.WORKERS if pair.PROCESSES else 1)
    answers = local_clients.start(listening, ("recommend", "order", "export"))
    if pair.PROCESSES:
        for one in listening:
            pair.forked(serve, one)
    else:
        threading.Thread(target=serve, args=(listening[0],), name="server", daemon=True).start()
    while not answers():
        time.sleep(0.01)
    pair.stay(answers)
