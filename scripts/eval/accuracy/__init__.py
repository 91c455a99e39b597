"""gilprof's state shares against kernel events of the same run."""
