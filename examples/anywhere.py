"""One application, wherever its model runs: only modelserve.toml says where.

[targets.prod]                         [targets.prod]
backend = "local"                      backend  = "sagemaker"
                                       region   = "eu-west-1"
                                       role_arn = "${SAGEMAKER_ROLE}"

python examples/anywhere.py
"""

import hashlib

from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

import modelserve as ms

X, y = load_digits(return_X_y=True)
X = (X / 16).astype("float32")
classifier = LogisticRegression(max_iter=200).fit(X[:1000], y[:1000])

model = ms.Model(classifier, example=X[:8])
deployment = model.serve("prod", name="digits")
try:
    labels = deployment.predict(X[1000:])
    print(f"accuracy {(labels == y[1000:]).mean():.4f}")
    print(f"answers  {hashlib.sha256(labels.tobytes()).hexdigest()[:16]}")
    deployment.scale(2)
    print(f"replicas {len(deployment.status().replicas)}")
finally:
    deployment.delete()
