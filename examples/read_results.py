"""Read the analysis of models over HTTP, in cells (`# %%`) that editors run one by one.

    layerscope serve &                 # not needed where `layerscope up` runs
    python examples/read_results.py

LAYERSCOPE_URL says where `query` answers; LAYERSCOPE_API_KEY is its key, if it asks for one.
"""

# %% Where the answers come from
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

URL = os.environ.get("LAYERSCOPE_URL", "http://127.0.0.1:8080")
KEY = os.environ.get("LAYERSCOPE_API_KEY")
query = httpx.Client(base_url=URL, timeout=60, headers={"authorization": f"Bearer {KEY}"} if KEY else {})


def get(path: str, **parameters: Any) -> Any:
    """Return the answer of a path; an error says what is wrong, and what to do."""
    answer = query.get(path, params=parameters)
    if answer.is_error:
        sys.exit("{message} {hint}".format(**answer.json()))
    return answer.json()


# %% The models of a dataset, newest first
models = get("/models", dataset="digits", state="complete")["models"]
for model in models:
    print(f"{model['model']}/{model['version']}: accuracy {model['test_accuracy']:.3f}")
if not models:
    sys.exit("there is no model yet: python examples/train_and_upload.py")

# %% One model: the headline of each of its products
name = "{dataset}/{model}/{version}".format(**models[0])
for product, line in get(f"/models/{name}")["products"].items():
    print(f"{product}: {line['state']} {line['headline']}")

# %% A product's data: how accurate the model is, and how sure that figure is
evaluation = get(f"/models/{name}/products/evaluation")["data"]
print("accuracy {accuracy:.3f}, 95 % interval {accuracy_low:.3f} to {accuracy_high:.3f}".format(**evaluation))

# %% A product's files: the picture of the confusion matrix
confusions = get(f"/models/{name}/products/confusion_matrix")
worst = confusions["data"]["most_confused"][0]
print(f"{worst['images']} images of {worst['true_name']} are taken for {worst['predicted_name']}")
(heatmap,) = (file for file in confusions["files"] if file["name"] == "heatmap.png")
Path("heatmap.png").write_bytes(query.get(heatmap["url"]).raise_for_status().content)

# %% Each layer, and the layer of another model that is most like it
for layer in get(f"/models/{name}/layers")["layers"]:
    similar = get(f"/models/{name}/layers/{quote(layer['layer'], safe='')}/similar", k=1)
    for hit in similar["hits"]:
        print(f"{layer['layer']}: {hit['layer']} of {hit['model']}/{hit['version']}, score {hit['score']:.2f}")

# %% The same from the command line, for shell scripts
shown = subprocess.run(["layerscope", "show", name, "--at", URL, "--json"], check=True, stdout=subprocess.PIPE)
print(f"{name}: {json.loads(shown.stdout)['state']}")
