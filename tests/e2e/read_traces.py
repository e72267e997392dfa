"""`python read_traces.py TRACKING_URI EXPERIMENT`: the spans that a tracking server has, as JSON."""

import json
import sys

from mlflow import MlflowClient

found = MlflowClient(sys.argv[1]).search_traces(locations=[sys.argv[2]])
json.dump(
    [
        [
            {"name": span.name, "id": span.span_id, "parent": span.parent_id, "inside": span.attributes}
            for span in trace.data.spans
        ]
        for trace in found
    ],
    sys.stdout,
    default=str,
)
