import sys, pickle, time, numpy as np, cv2

cv2.setNumThreads(1)
sys.path.insert(0, "/tmp/work/i5")
import decode
from nucseg_ray.imaging.metrics import match, pool, bowl_score


def labels(p, fn, **k):
    o = p["o"]
    h, w = p["shape"]
    l = fn(o, **k)
    ma = k.get("min_area", 20) * p["f"] ** 2
    l = decode.clean(l, max(ma, 8))
    if l.shape != (h, w):
        l = cv2.resize(l.astype(np.float32), (w, h), interpolation=cv2.INTER_NEAREST).astype(np.int32)
    return l


def upscale(p):
    """resize outputs back to native first"""
    h, w = p["shape"]
    q = dict(p)
    o = np.concatenate(
        [
            cv2.resize(
                np.ascontiguousarray(p["o"][..., k : k + 3].astype(np.float32)),
                (w, h),
                interpolation=cv2.INTER_LINEAR if p["f"] < 1 else cv2.INTER_AREA,
            )
            for k in (0, 3)
        ],
        2,
    )
    o[..., 3:5] /= p["f"]
    o[..., 5] -= np.log2(p["f"])
    q["o"] = o
    q["f"] = 1.0
    return q


def score(P, fn, back=True, scale=1.0, **k):
    r = {}
    t = 0
    for p in P:
        if back and p["f"] != 1:
            p = upscale(p)
        t0 = time.time()
        l = labels(p, fn, **k)
        t += time.time() - t0
        if l.shape != p["labels"].shape:
            l = cv2.resize(l.astype(np.float32), p["labels"].shape[::-1], interpolation=cv2.INTER_NEAREST).astype(
                np.int32
            )
        m = match(p["labels"], l)
        r.setdefault(p["kind"][:5], []).append(m)
        r.setdefault("all", []).append(m)
    out = {}
    for kk, v in r.items():
        q = pool(v)
        out[kk] = (q.ap[0], q.ap[5], q.ap.mean(), bowl_score(v))
    return out, t / len(P)


def show(name, res):
    out, t = res
    print(
        f"{name:40s} "
        + "  ".join(f"{k}: {v[0]:.3f} {v[1]:.3f} {v[2]:.3f} B{v[3]:.3f}" for k, v in sorted(out.items()))
        + f"  {t * 1e3:.0f} ms",
        flush=True,
    )


if __name__ == "__main__":
    P = pickle.load(open(sys.argv[1], "rb"))
    show("A distance", score(P, decode.A))
    show("AB distance+boundary", score(P, decode.AB))
    show("V votes", score(P, decode.V))
