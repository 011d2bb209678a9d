"""Clustering: do the clusters of vectors follow the labels of the texts?"""

from typing import ClassVar

import numpy as np

from embedtrain.evaluation.results.result import Predictions
from embedtrain.evaluation.tasks.base import Outcome, Task
from embedtrain.evaluation.tasks.files import TaskFiles
from embedtrain.evaluation.tasks.labelled import LabelledTexts, scikit_learn
from embedtrain.evaluation.tasks.subject import Subject

BATCH_SIZE = 512
SEED = 42


class Clustering(Task):
    """Run mini-batch k-means with as many clusters as labels and compare by V-measure.

    One clustering, the best of ten starts, of all texts; its clusters are kept, so V-measure can be
    recomputed and resampled. MTEB averages ten clusterings of random samples instead.
    """

    kind: ClassVar[str] = "clustering"
    needs: ClassVar[str] = "rows {text, label} without training rows"

    def __init__(self, files: TaskFiles) -> None:
        self.rows = LabelledTexts(files.path)
        self.data = TaskFiles(files.path, files.name, files.split).described(
            "clustering", len(self.rows), len(self.rows)
        )
        self.item_file, self.texts = files.path, self.rows.by_id

    @classmethod
    def recognises(cls, files: TaskFiles) -> bool:
        """Whether rows hold a text and a label, and no training rows lie beside them."""
        return {"text", "label"} <= files.columns and files.training is None

    def run(self, subject: Subject) -> Outcome:
        """Cluster the vectors."""
        kmeans = scikit_learn("cluster", "to cluster vectors").MiniBatchKMeans
        vectors = subject.features(self.rows.texts, self.kind)
        names, classes = np.unique(np.array(self.rows.labels), return_inverse=True)
        clusters = kmeans(
            n_clusters=len(names), batch_size=BATCH_SIZE, n_init=10, random_state=SEED
        ).fit_predict(np.asarray(vectors))
        predictions = Predictions(
            predicted=dict(zip(self.rows.ids, map(float, clusters), strict=True)),
            expected=dict(zip(self.rows.ids, map(float, classes), strict=True)),
        )
        return Outcome({}, predictions, ("v_measure",))
