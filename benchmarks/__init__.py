"""hgat beside DGL and PyTorch Geometric, in one process and one run: `python -m benchmarks --help`.

A pair is timed only after it was shown to give the same outputs and gradients. What is printed are ratios of medians
over interleaved rounds; bare times stand only in the file that --json names.
"""
