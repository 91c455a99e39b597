"""Clients of a local HTTP server, in a process of their own: each asks for the pages in turn, again and again, over its own connection.

A server of several processes has a socket for each, and each gets its share of the connections: which process accepts a connection would else be chance, and stay so."""
import os
import select
import socket

import pair

CLIENTS = 12


def listen(processes):
    """A socket for each process of the server."""
    found = []
    for _ in range(processes):
        # With the protocol named asyncio sets TCP_NODELAY, without which each answer waits 40 ms for an acknowledgement.
        one = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        one.bind(("127.0.0.1", 0))
        one.listen(64)
        found.append(one)
    return found


class Client:
    def __init__(self, number, port, requests):
        self.connection, self.requests, self.turn, self.answer = socket.create_connection(("127.0.0.1", port)), requests, number, bytearray()

    def ask(self):
        self.connection.sendall(self.requests[self.turn % len(self.requests)])
        self.turn += 1

    def answered(self):
        """Reads what there is; whether it is the whole answer."""
        self.answer += self.connection.recv(1 << 16)
        head = self.answer.find(b"\r\n\r\n")
        if head < 0:
            return False
        length = self.answer[:head + 2].lower().split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0]
        if len(self.answer) < head + 4 + int(length):
            return False
        self.answer.clear()
        return True


def ask(ports, pages, counts):
    """Sends the next request of a connection as soon as the last one is answered. One process for all connections, and little work, as a server's clients are elsewhere."""
    os.nice(5)
    requests = [b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n" % page.encode() for page in pages]
    clients = [Client(n, ports[n % len(ports)], requests) for n in range(CLIENTS)]
    by_number, waiting, done = {client.connection.fileno(): client for client in clients}, select.poll(), 0
    for client in clients:
        waiting.register(client.connection, select.POLLIN)
        client.ask()
    while True:
        for number, _ in waiting.poll():
            if by_number[number].answered():
                done += 1
                counts.set(0, done)
                by_number[number].ask()


def start(listening, pages):
    """Starts them. Returns the count of answers."""
    counts = pair.Counts(1)
    pair.forked(ask, [one.getsockname()[1] for one in listening], pages, counts)
    return counts.sum
