import pickle, sys, numpy as np, decode


def truth(L, s=1.0):
    a = np.bincount(L.ravel())[1:]
    dm = 2 * np.sqrt(a[a > 0] / np.pi)
    o = np.argsort(dm)
    w = np.cumsum(dm[o] ** 2)
    return s * dm[o][np.searchsorted(w, w[-1] / 2)]


def est(p):
    fg = decode.sig(p["o"][..., 0]) > 0.5
    if fg.sum() < 20:
        return None
    return 24 * 2 ** float(np.median(p["o"][..., 5].astype(np.float32)[fg])) / p["f"]


def est_inst(p):
    l = decode.clean(decode.V(p["o"], r=0.35, sm=0.12, minv=0.1), 20)
    return truth(l) / p["f"] if l.max() else None


P = pickle.load(open(sys.argv[1], "rb"))
s = float(sys.argv[2]) if len(sys.argv) > 2 else 1.0
for n, f in (("size map", est), ("instances", est_inst)):
    e = np.array([np.log2((f(p) or 24) / truth(p["labels"], s)) for p in P])
    a = abs(e)
    print(
        f"{n:10s} scale {s} median {np.median(e):+.2f} |e| p50 {np.median(a):.2f} p90 {np.percentile(a, 90):.2f} p95 {np.percentile(a, 95):.2f} max {a.max():.2f} share<0.26 {np.mean(a < 0.26):.2f} <0.5 {np.mean(a < 0.5):.2f}"
    )
    if len(sys.argv) > 3:
        pickle.dump({p["id"]: (f(p) or 24) for p in P}, open(sys.argv[3] + n.split()[0] + ".pkl", "wb"))
