import os, time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
os.environ["TF_USE_LEGACY_KERAS"] = "1"
import numpy as np, tensorflow as tf, tf_keras, net

x = np.random.rand(16, 256, 256, 3).astype(np.float32)


def bench(name, fn, n=4):
    fn()
    fn()
    t = []
    for _ in range(n):
        s = time.time()
        fn()
        t.append(time.time() - s)
    print(f"{name:40s} {min(t):.3f} s {16 / min(t):.1f}/s", flush=True)


m = net.build(sep=(0, 0, 1, 1), head=1)
T = np.random.rand(16, 256, 256, 8).astype(np.float32)


def mk(vs, training, model=m):
    @tf.function
    def f():
        with tf.GradientTape() as g:
            o = model(x, training=training)
            l, _ = net.loss_fn(tf.constant(T), o)
        return [tf.reduce_sum(a) for a in g.gradient(l, vs)]

    return f


fw = tf.function(lambda: tf.reduce_sum(m(x, training=False)))
bench("forward", fw)
encv = {v.ref() for v in m.enc.trainable_variables}
dec = [v for v in m.trainable_variables if v.ref() not in encv]
bench("frozen", mk(dec, True))
bench("fine all, bn inference", mk(m.trainable_variables, True))
nobn = [v for v in m.trainable_variables if not (v.ref() in encv and ("gamma" in v.name or "beta" in v.name))]
for l in m.enc.layers:
    if isinstance(l, tf_keras.layers.BatchNormalization):
        l.trainable = False
bench("fine, encoder bn vars frozen", mk(m.trainable_variables, True))
m2 = net.build(sep=(0, 0, 1, 1), head=1, enc_train_bn=True)
bench("fine all, bn training", mk(m2.trainable_variables, True, m2))
