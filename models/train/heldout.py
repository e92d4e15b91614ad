"""Held-out documents with the true replies, for measuring what quantization costs: `python3 heldout.py N SEED OUT.json`.

Each document is a list of [text, is it a reply]; joined, the texts are what the model reads. No combination in them was in the training data.
"""
import itertools
import json
import random
import sys

import generate as g


def main():
    n, seed, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    r = random.Random("heldout " + seed)
    docs = [[["".join(t for t, _ in part), bool(reply)] for reply, part in itertools.groupby(g.render(g.document(r, True)), lambda x: x[1])] for _ in range(n)]
    open(out, "w").write("[\n" + ",\n".join(json.dumps(d, ensure_ascii=False, separators=(",", ":")) for d in docs) + "\n]\n")


if __name__ == "__main__":
    main()
