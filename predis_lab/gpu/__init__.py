"""Everything that touches CUDA, and nothing else does. Imported only where a device answers."""
