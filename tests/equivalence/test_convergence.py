"""Near a minimum SAMPa does what SAM does, and perturbing along a stale or a random direction does not."""

from benchmarks.convergence import compare


def test_sam_and_sampa_converge_and_naive_parallelisations_do_not():
    final = {name: sum(values[-100:]) / 100 for name, values in compare(1500).items()}
    start = 0.05
    for converging in ("SAM", "SAMPa-0", "SAMPa-0.1"):
        assert final[converging] < 1e-4 * start
        for naive in ("OptSAM", "RandSAM"):
            assert final[naive] > 100 * final[converging]
