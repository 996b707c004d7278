"""crops + targets for experiments"""

import pickle, numpy as np, cv2, sys

cv2.setNumThreads(1)
sys.path.insert(0, "/tmp/work/i5")
from nucseg_ray.imaging.augment import _change_intensity, Augmentation, empty_crop


def load():
    B = pickle.load(open("/tmp/work/r5/bowl.pkl", "rb"))
    for b in B:
        L = b["labels"]
        n = int(L.max())
        fl = L.ravel()
        a = np.bincount(fl, minlength=n + 1).astype(float)
        yy, xx = np.mgrid[: L.shape[0], : L.shape[1]]
        cy = np.bincount(fl, yy.ravel(), n + 1) / np.maximum(a, 1)
        cx = np.bincount(fl, xx.ravel(), n + 1) / np.maximum(a, 1)
        b["lab16"] = L.astype(np.uint16)
        b["cy"] = cy.astype(np.float32)
        b["cx"] = cx.astype(np.float32)
        b["area"] = a.astype(np.float32)
        # depth in own nucleus
        same = np.zeros(L.shape, bool)
        P = np.pad(L, 1)
        same = (L > 0) & (P[:-2, 1:-1] == L) & (P[2:, 1:-1] == L) & (P[1:-1, :-2] == L) & (P[1:-1, 2:] == L)
        dt = cv2.distanceTransform(same.astype(np.uint8), cv2.DIST_L2, 5) + (L > 0)
        mx = np.zeros(n + 1, np.float32)
        np.maximum.at(mx, fl, dt.ravel())
        b["dist"] = np.clip(np.ceil(255 * dt / np.maximum(mx[L], 1)), 0, 255).astype(np.uint8) * (L > 0)
        dm = 2 * np.sqrt(a[1:][a[1:] > 0] / np.pi)
        if len(dm):
            o = np.argsort(dm)
            w = np.cumsum(dm[o] ** 2)
            b["d"] = float(dm[o][np.searchsorted(w, w[-1] / 2)])
        else:
            b["d"] = 20.0
        b["im"] = b["x"]
    return B


NT = 8  # nucleus,dist,boundary,dy,dx,size, valid, weight


def render(b, rng, S, aug, dlo, dhi, invert=0.0, native=0.5):
    if rng.random() < aug.empty_probability:
        x, _ = empty_crop(S, 1, rng)
        t = np.zeros((S, S, NT), np.float32)
        t[..., 6] = 1
        return x, t
    H, W = b["lab16"].shape
    if rng.random() < native:
        s = float(np.exp(rng.normal(0, 0.25)))
    else:
        s = float(np.exp(rng.uniform(np.log(dlo), np.log(dhi)))) / b["d"]
    s = min(max(s, 0.25), 4.0)
    k = int(rng.integers(8))
    R = np.array([[1, 0], [0, 1.0]])
    th = k % 4 * np.pi / 2
    if rng.random() < 0.3:
        th += rng.uniform(-np.pi / 4, np.pi / 4)
    R = np.array([[np.cos(th), -np.sin(th)], [np.sin(th), np.cos(th)]])
    if k >= 4:
        R = R @ np.diag([-1, 1.0])
    st = np.diag([np.exp(rng.normal(0, 0.05)), np.exp(rng.normal(0, 0.05))])
    M = R @ st / s  # crop->image, (x,y)
    side = S / s
    c = np.array(
        [rng.uniform(min(side, W) / 2, W - min(side, W) / 2), rng.uniform(min(side, H) / 2, H - min(side, H) / 2)]
    )
    t = c - M @ np.array([S / 2, S / 2])
    A = np.hstack([M, t[:, None]])
    im = b["im"]
    if s < 0.7:
        im = cv2.GaussianBlur(im, (0, 0), 0.35 / s)
    x = cv2.warpAffine(im, A, (S, S), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT_101)
    L = cv2.warpAffine(
        b["lab16"], A, (S, S), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_CONSTANT
    ).astype(np.int32)
    D = cv2.warpAffine(
        b["dist"], A, (S, S), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_CONSTANT
    )
    V = cv2.warpAffine(
        np.ones((H, W), np.uint8),
        A,
        (S, S),
        flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
    )
    # centres in crop coords
    Mi = np.linalg.inv(M)
    cc = (np.stack([b["cx"], b["cy"]], 1) - t) @ Mi.T
    sc = np.sqrt(abs(np.linalg.det(Mi)))
    diam = np.maximum(2 * np.sqrt(b["area"] / np.pi) * sc, 2.0)
    fg = L > 0
    yy, xx = np.mgrid[:S, :S].astype(np.float32)
    T = np.zeros((S, S, NT), np.float32)
    T[..., 0] = fg
    T[..., 1] = D / 255.0 * fg
    # boundary: pixel whose 5x5 neighbourhood holds two labels
    mx = cv2.dilate(L.astype(np.float32), np.ones((5, 5), np.uint8))
    Lz = np.where(fg, L, 70000).astype(np.float32)
    mn = cv2.erode(Lz, np.ones((5, 5), np.uint8))
    T[..., 2] = (mn < 70000) & (mx > 0) & (mn != mx)
    T[..., 3] = np.where(fg, (cc[:, 1].astype(np.float32)[L] - yy), 0)
    T[..., 4] = np.where(fg, (cc[:, 0].astype(np.float32)[L] - xx), 0)
    T[..., 5] = np.where(fg, np.log2(diam.astype(np.float32)[L] / 24), 0)
    T[..., 6] = V
    T[..., 7] = np.where(fg, 16 / diam.astype(np.float32)[L], 0)
    T[..., 3:5] /= 16
    return colour(x, aug, rng, invert), T


def colour(x, aug, rng, invert):
    if invert and rng.random() < invert:
        x = 255 - x
    grey = (x[..., 0] == x[..., 1]).all()
    if not grey:
        r = rng.random()
        if r < 0.1:
            x = np.repeat(x.mean(2, keepdims=True).astype(np.uint8), 3, 2)
        elif r < 0.6:
            h = cv2.cvtColor(np.ascontiguousarray(x), cv2.COLOR_RGB2HSV).astype(np.int16)
            h[..., 0] = (h[..., 0] + int(rng.normal(0, 8))) % 180
            h[..., 1] = np.clip(h[..., 1] * np.exp(rng.normal(0, 0.25)), 0, 255)
            x = cv2.cvtColor(h.astype(np.uint8), cv2.COLOR_HSV2RGB)
    return _change_intensity(np.ascontiguousarray(x), aug, rng)


def drawer(B, kindpow=0.5):
    kinds = np.array([b["kind"] for b in B])
    u, inv, c = np.unique(kinds, return_inverse=True, return_counts=True)
    # within a kind, weight groups: images by sqrt of area
    w = 1 / c[inv] ** kindpow
    return w / w.sum()
