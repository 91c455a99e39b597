"""pandas: each worker cleans and groups a data frame of its own, by string methods, a Python function a row, and groupby."""
import pandas
import pair


def setup(index):
    return pandas.DataFrame({"city": ["City %d " % (n % 50) for n in range(4000)], "name": ["Name-%d" % n for n in range(4000)], "price": [n * 7919 % 1000 / 10 for n in range(4000)]})


def band(price):
    return "high" if price > 66 else "middle" if price > 33 else "low"


def clean(frame):
    frame = frame.assign(city=frame["city"].str.strip().str.lower(), band=frame["price"].apply(band), number=frame["name"].str.split("-").str[1].astype(int))
    return frame.groupby(["city", "band"])["price"].agg(["mean", "max", "count"])


pair.run(clean, setup)
