"""The network, its losses, the bundle on disk and the predictor. Nothing else imports TensorFlow."""
