"""A server with four workers under load, or a test run: a tree of processes that others wrote.

--how gunicorn   four workers of four threads each, which compute and sleep; requests come all the time
      celery     four prefork workers, with tasks from a broker in a folder
      pytest     two workers of pytest-xdist, whose tests compute in threads
--packages DIR   where gunicorn, celery and pytest are
"""
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

import harness

APP = '''
import os, threading, time
def burn(seconds):
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass
def app(environ, start_response):
    burn(0.01)
    time.sleep(0.01)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
'''
TASKS = '''
import threading, time
from celery import Celery
from app import burn
app = Celery("tasks", broker="filesystem://")
app.conf.broker_transport_options = {"data_folder_in": "broker", "data_folder_out": "broker"}
@app.task
def compute():
    threads = [threading.Thread(target=burn, args=(0.1,)) for _ in range(3)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
'''
TESTS = '''
import pytest, threading
from app import burn
@pytest.mark.parametrize("n", range(100000))
def test_compute(n):
    threads = [threading.Thread(target=burn, args=(0.1,)) for _ in range(3)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
'''


def start(folder, packages, *args):
    env = dict(os.environ, PYTHONPATH=packages + ":" + folder, PYTHONDONTWRITEBYTECODE="1")
    quiet = subprocess.DEVNULL
    return subprocess.Popen([sys.executable, "-m"] + list(args), cwd=folder, env=env, stdin=quiet, stdout=quiet, stderr=quiet)


def request(path):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        while connection.recv(4096):
            pass


def requests(path):
    while True:
        try:
            request(path)
        except OSError:
            time.sleep(0.05)


def gunicorn(folder, packages):
    path = os.path.join(folder, "socket")
    server = start(folder, packages, "gunicorn", "-w", "4", "-k", "gthread", "--threads", "4", "-b", "unix:" + path, "app:app")
    for _ in range(16):
        threading.Thread(target=requests, args=(path,), daemon=True).start()
    return server, 4


def celery(folder, packages):
    os.mkdir(os.path.join(folder, "broker"))
    send = "import tasks, time\nwhile True:\n    for _ in range(20): tasks.compute.delay()\n    time.sleep(1)\n"
    sender = os.path.join(folder, "sender.py")
    with open(sender, "w") as file:
        file.write(send)
    start(folder, packages, "sender")
    return start(folder, packages, "celery", "-A", "tasks", "worker", "-c", "4", "-P", "prefork"), 4


def pytest(folder, packages):
    return start(folder, packages, "pytest", "-n", "2", "-q", "-p", "no:cacheprovider", "test_compute.py"), 2


def children(pid):
    """Of a process and of the processes below it."""
    found = []
    for other in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/stat" % other) as stat:
                if int(stat.read().rpartition(")")[2].split()[1]) == pid:
                    found.append(int(other))
        except OSError:
            pass
    return found


def main():
    if os.getpgrp() != os.getpid():
        os.setpgrp()
    folder = tempfile.mkdtemp()
    for name, text in (("app", APP), ("tasks", TASKS), ("test_compute", TESTS)):
        with open(os.path.join(folder, name + ".py"), "w") as file:
            file.write(text)
    packages = sys.argv[sys.argv.index("--packages") + 1]
    how = {"gunicorn": gunicorn, "celery": celery, "pytest": pytest}[sys.argv[sys.argv.index("--how") + 1]]
    server, count = how(folder, packages)
    while len(children(server.pid)) < count:
        if server.poll() is not None:
            sys.exit("the server ended with %d" % server.returncode)
        time.sleep(0.05)
    # What they start with, imports above all, is no work of theirs.
    time.sleep(2)
    harness.fact({"workers": children(server.pid), "server": server.pid})
    harness.ready()
    while os.read(0, 4096):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    os.killpg(0, 9)


if __name__ == "__main__":
    main()
