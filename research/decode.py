"""maps -> labels variants; all on raw float outputs o (h,w,6): nucleus logit, dist logit, boundary logit, dy, dx (/16 px), log2(d/24)"""

import numpy as np, cv2
from skimage.segmentation import watershed

sig = lambda v: 1 / (1 + np.exp(-v.astype(np.float32)))


def seeds_of(mask, minpx):
    n, l, st, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    ok = st[:, 4] >= minpx
    ok[0] = False
    return np.where(ok, np.cumsum(ok), 0).astype(np.int32)[l]


def finish(lab, fg, min_area):
    # components of fg without a label become nuclei
    n, l = cv2.connectedComponents((fg & (lab == 0)).astype(np.uint8), connectivity=4)
    return lab, min_area


def grow(fg, surface, seeds):
    n, l = cv2.connectedComponents(fg.astype(np.uint8), connectivity=4)
    has = np.zeros(n, bool)
    has[l[seeds > 0]] = True
    orphan = fg & ~has[l]
    s = seeds.copy()
    m = s.max()
    s[orphan] = l[orphan] + m
    return watershed(surface, s, mask=fg)


def A(o, t=0.5, ts=0.5, sm=1.0, **k):
    fg = sig(o[..., 0]) > t
    d = sig(o[..., 1])
    ds = cv2.GaussianBlur(d, (0, 0), sm)
    return grow(fg, -d, seeds_of((ds > ts) & fg, 5))


def AB(o, t=0.5, ts=0.5, sm=1.0, wb=0.5, **k):
    fg = sig(o[..., 0]) > t
    d = sig(o[..., 1])
    b = sig(o[..., 2])
    e = d - wb * b
    ds = cv2.GaussianBlur(e, (0, 0), sm)
    return grow(fg, -e, seeds_of((ds > ts) & fg, 5))


def V(o, t=0.5, r=0.25, minv=0.15, sm=0.08, d=None, **k):
    """centre votes. r: peak radius, sm: smoothing, as parts of the diameter; minv: least votes as a part of a disc of the diameter"""
    fg = sig(o[..., 0]) > t
    h, w = fg.shape
    if not fg.any():
        return np.zeros((h, w), np.int32)
    yy, xx = np.nonzero(fg)
    off = o[..., 3:5].astype(np.float32)[yy, xx] * 16
    py = np.clip(np.rint(yy + off[:, 0]), 0, h - 1).astype(int)
    px = np.clip(np.rint(xx + off[:, 1]), 0, w - 1).astype(int)
    size = 24 * 2.0 ** o[..., 5].astype(np.float32)[yy, xx]
    if d is None:
        d = float(np.median(size))
    # each vote weighs 1/area of its own nucleus: a whole nucleus votes 1
    acc = (
        np.bincount(py * w + px, weights=4 / np.pi / np.maximum(size, 4) ** 2, minlength=h * w)
        .reshape(h, w)
        .astype(np.float32)
    )
    k_ = max(1, int(round(sm * d)))
    acc = cv2.GaussianBlur(acc, (0, 0), max(0.8, sm * d))
    R = max(1, int(round(r * d)))
    box = cv2.boxFilter(acc, -1, (2 * R + 1, 2 * R + 1), normalize=False, borderType=cv2.BORDER_CONSTANT)
    mx = cv2.dilate(acc, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * R + 1, 2 * R + 1)))
    peak = (acc >= mx) & (acc > 0) & (box > minv)
    n, pl = cv2.connectedComponents(peak.astype(np.uint8), connectivity=8)
    if n == 1:
        return np.zeros((h, w), np.int32)
    _, near = cv2.distanceTransformWithLabels(
        (pl == 0).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    # near labels number zero pixels; map to peaks
    lut = np.zeros(near.max() + 1, np.int32)
    z = pl > 0
    lut[near[z]] = pl[z]
    lab = np.zeros((h, w), np.int32)
    lab[yy, xx] = lut[near[py, px]]
    return keep_largest(lab)


def keep_largest(lab):
    # components by label equality: cut where labels differ
    P = lab
    same = np.ones(P.shape, np.uint8)
    edge = np.zeros(P.shape, bool)
    edge[:, 1:] |= P[:, 1:] != P[:, :-1]
    edge[1:] |= P[1:] != P[:-1]
    n, l, st, _ = cv2.connectedComponentsWithStats(((P > 0) & ~edge).astype(np.uint8), connectivity=4)
    own = np.zeros(n, np.int32)
    own[l.ravel()] = P.ravel()
    own[0] = 0
    best = {}
    area = st[:, 4]
    order = np.argsort(area)
    big = np.zeros(P.max() + 1, np.int32)
    big[own[order]] = order
    keep = np.zeros(n, bool)
    keep[big[1:]] = True
    keep[0] = False
    seeds = np.where(keep[l], P, 0).astype(np.int32)
    return watershed(np.zeros(P.shape, np.uint8), seeds, mask=P > 0)


def clean(lab, min_area):
    n = lab.max()
    a = np.bincount(lab.ravel(), minlength=n + 1)
    k = a >= min_area
    k[0] = False
    return np.where(k, np.cumsum(k), 0).astype(np.int32)[lab]
