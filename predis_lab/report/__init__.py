"""How a claim is shown: figures, tables, the report. Reads what `bench` stored, and nothing else."""
