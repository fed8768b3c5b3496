"""Ways to a policy that do not learn: dynamic programming, NetAdapt, baselines."""
