"""Side-by-side benchmarks: our code and its peer on the same inputs, alternately, in one run. Ratios are the claim."""
