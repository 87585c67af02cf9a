"""Runs whose samples are known."""

import json

import numpy as np

from predis_lab.bench import results
from predis_lab.report import claims
from predis_lab.report.facts import Facts

RECORDS = claims.RECORDS


class Made:
    """A run whose rates are known: blocks scatter by 1 % around them."""

    def __init__(self, directory, notebook="t"):
        self.run = results.Run.open(directory, notebook=notebook)
        self.generator = np.random.default_rng(7)

    def add(self, system, rate, *, workload="get", records=RECORDS, keys=10, blocks=12, p95=None):
        params = {"records": records, "keys": keys, "value_nbytes": 64}
        values = rate * self.generator.normal(1, 0.01, blocks)
        for block, value in enumerate(values):
            self.run.add_sample(system, workload, params, block, "throughput", value, "1/s")
            if p95:
                self.run.add_sample(system, workload, params, block, "latency_p95", p95[block % len(p95)], "s")  # fmt: skip
        return values

    def facts(self, gpu=None, servers=()):
        """As of a machine with this GPU or with none, whichever this one is."""
        self.run.save(servers)
        path = self.run.directory / "environment.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"gpu": gpu}))
        return Facts.of(self.run.directory)
