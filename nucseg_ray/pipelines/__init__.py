"""The runs: training, inference, evaluation. Nothing else imports Ray."""
