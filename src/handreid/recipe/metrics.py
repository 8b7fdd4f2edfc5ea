"""What is measured of a ranking: the names in files and on command lines, and those that people read."""

METRICS = {
    "rank1": "rank-1",
    "rank5": "rank-5",
    "rank10": "rank-10",
    "map": "mAP",
    "map_trapezoid": "mAP trapezoid",
    "mrr": "MRR",
    "minp": "mINP",
    "r_precision": "R-precision",
    "map_at_r": "MAP@R",
    "identity_rank1": "identity rank-1",
    "identity_rank5": "identity rank-5",
    "identity_rank10": "identity rank-10",
}
