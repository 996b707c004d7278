import pickle, sys, score, decode

P = pickle.load(open(sys.argv[1], "rb"))
for r, sm, mv in (
    (0.35, 0.12, 0.1),
    (0.45, 0.12, 0.1),
    (0.45, 0.16, 0.05),
    (0.35, 0.2, 0.05),
    (0.55, 0.16, 0.05),
    (0.45, 0.2, 0.02),
):
    score.show(f"V r={r} sm={sm} minv={mv}", score.score(P, decode.V, r=r, sm=sm, minv=mv))
