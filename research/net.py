import sys

sys.path.insert(0, "/tmp/work/i5")
import tensorflow as tf, tf_keras, numpy as np
from nucseg_ray.model.architecture import TAPS

layers = tf_keras.layers
MOM = 0.97
NOUT = 6


def build(
    nout=NOUT,
    head=3,
    dec=(128, 96, 64, 48),
    skips=(64, 48, 32, 24),
    weights="/work/shared/data/weights/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
    enc_train_bn=False,
    sep=(0, 0, 0, 1),
):
    im = layers.Input((None, None, 3))
    base = tf_keras.applications.MobileNetV2(input_shape=(None, None, 3), include_top=False, weights=None)
    donor = tf_keras.applications.MobileNetV2(input_shape=(224, 224, 3), include_top=False, weights=weights)
    base.set_weights(donor.get_weights())
    enc = tf_keras.Model(base.input, [base.get_layer(t).output for t in TAPS], name="encoder")
    f = enc(im * 2.0 - 1.0) if enc_train_bn else enc(im * 2.0 - 1.0, training=False)
    half, q, e, s, d = f
    x = d
    for i, sk in enumerate((s, e, q, half)):
        if x.shape[-1] > dec[i]:
            x = layers.Conv2D(dec[i], 1, use_bias=False)(x)
        x = layers.UpSampling2D(2, interpolation="bilinear")(x)
        sk = layers.Conv2D(skips[i], 1, use_bias=False)(sk)
        sk = layers.BatchNormalization(momentum=MOM)(sk)
        sk = layers.ReLU()(sk)
        x = layers.Concatenate()([x, sk])
        C = layers.SeparableConv2D if sep[i] else layers.Conv2D
        x = C(dec[i], 3, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization(momentum=MOM)(x)
        x = layers.ReLU()(x)
    o = layers.Conv2D(4 * nout, head, padding="same", name="head", dtype="float32")(x)
    o = layers.Lambda(lambda t: tf.nn.depth_to_space(tf.cast(t, tf.float32), 2), dtype="float32")(o)
    m = tf_keras.Model(im, o)
    m.enc = enc
    return m


def loss_fn(T, o):
    V = T[..., 6]
    nv = tf.reduce_sum(V) + 1.0
    bce = lambda l, t: tf.nn.sigmoid_cross_entropy_with_logits(labels=t, logits=l)
    l0 = tf.reduce_sum(bce(o[..., 0], T[..., 0]) * V) / nv
    p = tf.sigmoid(o[..., 0]) * V
    w = T[..., 0] * V
    dice = 1 - (2 * tf.reduce_sum(p * w) + 1) / (tf.reduce_sum(p) + tf.reduce_sum(w) + 1)
    least = -(tf.math.xlogy(T[..., 1], T[..., 1]) + tf.math.xlogy(1 - T[..., 1], 1 - T[..., 1]))
    l1 = tf.reduce_sum((bce(o[..., 1], T[..., 1]) - least) * V) / nv
    pb = tf.sigmoid(o[..., 2]) * V
    wb = T[..., 2] * V
    db = 1 - (2 * tf.reduce_sum(pb * wb) + 1) / (tf.reduce_sum(pb) + tf.reduce_sum(wb) + 1)
    l2 = tf.reduce_sum(bce(o[..., 2], T[..., 2]) * V) / nv + 0.3 * db
    fg = T[..., 0] * V
    nf = tf.reduce_sum(fg) + 1.0
    l3 = tf.reduce_sum(tf.reduce_sum(tf.abs(o[..., 3:5] - T[..., 3:5]), -1) * T[..., 7] * V) / nf
    l4 = tf.reduce_sum(tf.abs(o[..., 5] - T[..., 5]) * fg) / nf
    parts = tf.stack([l0, dice, l1, l2, l3, l4])
    return l0 + dice + l1 + l2 + l3 + 0.3 * l4, parts
