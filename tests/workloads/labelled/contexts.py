"""A TLS context for each request, as `requests.get` and `httpx.get` without a session make one: OpenSSL reads the certificates with the GIL released."""
import ssl
import time

import certifi
import pair

AUTHORITIES = certifi.where()


def context(_):
    ssl.create_default_context(cafile=AUTHORITIES)
    time.sleep(0.02)


pair.run(context)
