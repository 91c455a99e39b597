"""What the pages of the web applications do: score and sort in Python, or encode and compress in C, and nothing of a server."""
import json
import zlib

CATALOG = [{"id": i, "name": "item %d" % i, "price": (i * 7919) % 1000 / 10, "tags": ["a%d" % (i % 7), "b%d" % (i % 11)]} for i in range(3000)]


def recommend(user):
    scores = []
    for item in CATALOG:
        score = 0.0
        for tag in item["tags"]:
            score += (hash(tag) ^ user) % 97
        scores.append((score / (1 + item["price"]), item["id"]))
    scores.sort(reverse=True)
    return scores[:10]


def export():
    return zlib.compress(json.dumps(CATALOG).encode())
