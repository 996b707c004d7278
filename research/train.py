import os, sys, time, argparse, multiprocessing as mp

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["TF_USE_LEGACY_KERAS"] = "1"
import numpy as np

ap = argparse.ArgumentParser()
ap.add_argument("--out")
ap.add_argument("--minutes", type=float, default=10)
ap.add_argument("--frozen", type=float, default=0.25, help="share of time frozen")
ap.add_argument("--bf16", type=int, default=1)
ap.add_argument("--crop", type=int, default=256)
ap.add_argument("--batch", type=int, default=16)
ap.add_argument("--lr", type=float, default=2e-3)
ap.add_argument("--enclr", type=float, default=0.3)
ap.add_argument("--encbn", type=int, default=0)
ap.add_argument("--fold", type=int, default=0)
ap.add_argument("--init")
ap.add_argument("--steps", type=int, default=0)
ap.add_argument("--invert", type=float, default=0.0)
ap.add_argument("--dlo", type=float, default=10)
ap.add_argument("--dhi", type=float, default=64)
ap.add_argument("--native", type=float, default=0.5)
ap.add_argument("--dec", default="128,96,64,48")
ap.add_argument("--sep", default="0,0,0,1")
ap.add_argument("--kindpow", type=float, default=0.5)
ap.add_argument("--head", type=int, default=1)
a = ap.parse_args()


def producer(q, seed, a):
    os.nice(5)
    import data
    from nucseg_ray.imaging.augment import Augmentation

    B = [b for b in data.load() if b["fold"] != a.fold]
    w = data.drawer(B, a.kindpow)
    aug = Augmentation()
    rng = np.random.default_rng(seed)
    while True:
        X = []
        T = []
        for i in rng.choice(len(B), a.batch, p=w):
            x, t = data.render(B[i], rng, a.crop, aug, a.dlo, a.dhi, a.invert, a.native)
            X.append(x)
            T.append(t)
        q.put((np.stack(X), np.stack(T).astype(np.float16)))


if __name__ == "__main__":
    q = mp.Queue(6)
    P = mp.Process(target=producer, args=(q, int(time.time()), a), daemon=True)
    P.start()
    import tensorflow as tf, tf_keras, net

    tf.config.threading.set_intra_op_parallelism_threads(2)
    if a.bf16:
        tf_keras.mixed_precision.set_global_policy("mixed_bfloat16")
    m = net.build(
        head=a.head,
        enc_train_bn=bool(a.encbn),
        dec=tuple(map(int, a.dec.split(","))),
        sep=tuple(map(int, a.sep.split(","))),
    )
    if a.init:
        z = np.load(a.init)
        m.set_weights([z[str(i)] for i in range(len(m.weights))])
    encv = {v.ref() for v in m.enc.trainable_variables}
    allv = m.trainable_variables
    decv = [v for v in allv if v.ref() not in encv]
    encl = [v for v in allv if v.ref() in encv]
    od = tf_keras.optimizers.Adam(1e-3, epsilon=1e-7)
    oe = tf_keras.optimizers.Adam(1e-4)

    def mk(fine):
        @tf.function
        def step(x, t):
            with tf.GradientTape() as g:
                o = m(tf.cast(x, tf.float32) / 255.0, training=True)
                l, p = net.loss_fn(tf.cast(t, tf.float32), o)
            vs = decv + encl if fine else decv
            gr = g.gradient(l, vs)
            gr, _ = tf.clip_by_global_norm(gr, 1.0)
            od.apply_gradients(zip(gr[: len(decv)], decv))
            if fine:
                oe.apply_gradients(zip(gr[len(decv) :], encl))
            return l, p

        return step

    od.build(decv)
    oe.build(encl)
    sf, st = mk(False), mk(True)
    ema = [w.copy() for w in m.get_weights()]
    n = 0
    t0 = time.time()
    T = a.minutes * 60
    n = 0
    wait = 0
    acc = []
    last = t0
    saved = t0
    x, t = q.get()
    sf(x, t)
    if not a.frozen:
        pass
    st(x, t)
    t0 = time.time()
    print("compiled", flush=True)
    nl = 0

    def save(ws, name):
        np.savez(a.out + name, **{str(i): w for i, w in enumerate(ws)})

    while True:
        f = (time.time() - t0) / T
        if a.steps:
            f = n / a.steps
        if f >= 1:
            break
        w = time.time()
        x, t = q.get()
        wait += time.time() - w
        fine = f >= a.frozen
        lr = a.lr * min(1, (n + 1) / 100) * 0.5 * (1 + np.cos(np.pi * f))
        od.learning_rate.assign(lr)
        oe.learning_rate.assign(lr * a.enclr)
        l, p = (st if fine else sf)(x, t)
        acc.append(p.numpy())
        n += 1
        if n % 8 == 0:
            d = min(0.98, (1 + n / 8) / (10 + n / 8))
            for e, v in zip(ema, m.get_weights()):
                e *= d
                e += (1 - d) * v
        if time.time() - last > 60:
            print(
                f"{f:.3f} n={n} {(n - nl) * a.batch / (time.time() - last):.1f} crops/s wait {wait:.1f}s fine {fine} loss {np.mean(acc, 0).round(4)}",
                flush=True,
            )
            last = time.time()
            nl = n
            acc = []
            wait = 0
        if time.time() - saved > 600:
            save(ema, ".npz")
            saved = time.time()
    save(ema, ".npz")
    save(m.get_weights(), "_raw.npz")
    print("done", n, time.time() - t0)
    P.terminate()
