"""How a claim is measured: real servers, seeded workloads, interleaved trials, statistics, results."""
