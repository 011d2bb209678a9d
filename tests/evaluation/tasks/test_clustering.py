import numpy as np
from task_toys import written

from embedtrain.evaluation.results.report import summarise
from embedtrain.evaluation.tasks.discovery import open_task


def test_clusters_that_follow_the_labels_have_v_measure_1_and_noise_about_0(bert, write_jsonl):
    rng = np.random.default_rng(0)
    rows = [{"text": f"t{n}", "label": n % 3} for n in range(60)]
    corners = 5 * np.eye(3)
    near = {f"t{n}": corners[n % 3] + 0.1 * rng.normal(size=3) for n in range(60)}
    noise = {f"t{n}": rng.normal(size=3) for n in range(60)}
    task = open_task(str(write_jsonl(rows)))
    values = []
    for vectors in (near, noise):
        outcome = task.run(written(bert, vectors))
        result = summarise(
            {}, task.data, predictions=outcome.predictions, set_metrics=outcome.set_metrics
        )
        values.append(result.metrics["v_measure"].value)
    assert values[0] == 1.0
    assert values[1] < 0.2
