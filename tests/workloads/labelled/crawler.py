"""A crawler: each worker fetches a page from a local server, which answers at once or (`--server slow`) after 100 ms, and takes its links and words out of it by the standard library's HTML parser."""
import collections
import html.parser
import http.client

import local_server
import pair

PAGE = ("<html><head><title>A page</title></head><body>%s</body></html>" % "".join(
    '<div class="item"><a href="/page/%d">item %d</a><p>some words about item %d, and <b>more</b> of them</p></div>' % (n, n, n) for n in range(60))).encode()
PORT = local_server.start(0.1 if pair.flag("server", "fast") == "slow" else 0, PAGE)


class Links(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.links, self.words = [], collections.Counter()

    def handle_starttag(self, tag, attributes):
        if tag == "a":
            self.links.append(dict(attributes)["href"])

    def handle_data(self, text):
        self.words.update(text.lower().split())


def fetch(connection, path):
    connection.request("GET", path)
    return connection.getresponse().read().decode()


def parse(text):
    found = Links()
    found.feed(text)
    return found.links, found.words.most_common(5)


def crawl(connection):
    parse(fetch(connection, "/"))


pair.run(crawl, lambda index: http.client.HTTPConnection("127.0.0.1", PORT))
