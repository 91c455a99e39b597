"""Web requests: each worker sends them to a local server, which answers after some milliseconds."""
import http.client

import local_server
import pair

PORT = local_server.start(0.004, b"x" * 2000)


def unit(connection):
    connection.request("GET", "/")
    connection.getresponse().read()


pair.run(unit, lambda index: http.client.HTTPConnection("127.0.0.1", PORT))
