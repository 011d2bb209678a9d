"""Stages ``step``, ``packed``, ``syncs`` and ``profile``: whole training steps on models of well-known sizes."""

import gzip
import shutil
import warnings
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from gpu_report_models import SHAPES, Training, build_model, random_batch
from gpu_report_setting import Missing, Row, Setting, Step, attempt, measure

LENGTHS = (512, 128, 8192)
"""Of the longest text; the shortest has an eighth. The one that the goal is about comes first."""
LARGEST_TRACE = 5 * 2**20
KERNELS = 25


def step_rows(setting: Setting) -> Iterator[Row]:
    """Yield one row for each length, shape and way of running a step, in bf16."""
    for length in setting.pick(LENGTHS, (24,)):
        for shape in SHAPES:
            for way in ("packed", "padded", "sentence-transformers", "compiled"):
                row = {"shape": shape, "longest": length, "way": way}
                yield attempt(row, partial(_step_cell, setting, shape, length, way))


def _step_cell(setting: Setting, shape: str, length: int, way: str) -> Row:
    if way == "compiled" and (setting.tiny or shape not in {"BERT-base", "MiniLM"}):
        raise Missing("takes a minute to compile; MiniLM and BERT-base are compiled")
    packing = "packed" if way == "packed" else "padded"
    model, batch = (
        build_model(setting, shape, length, packing=packing),
        random_batch(setting, length),
    )
    from embedtrain.training.flops import retrieval_counter

    training = Training(model, batch, compiled=way == "compiled")
    count = retrieval_counter(model)
    work = count(batch, training.module.execution, training.objective)
    peer = way == "sentence-transformers"
    found = measure(setting, _peer(setting, model, batch) if peer else training)
    seconds = found["ms"] / 1000
    row = found | {
        "tokens": work.tokens,
        "tokens_per_second": round(work.tokens / seconds),
        "padding": round(work.padding_ratio, 3),
    }
    peak = setting.peak("bf16")
    return row if peak is None or work.operations is None else row | {"mfu": round(work.operations / seconds / peak, 3)}  # fmt: skip


def _peer(setting: Setting, model: Any, batch: Any) -> Step:  # noqa: ANN401
    """Return a step of sentence-transformers on the same backbone and texts, each side padded to its longest."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise Missing("sentence-transformers is not here") from error
    if type(model.backbone).__name__.startswith("Qwen3"):
        raise Missing("its folder would take gigabytes to write")
    folder = setting.folder / "peer"
    model.use_padded_attention()
    model.backbone.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    peer = SentenceTransformer(str(folder), device=str(setting.device)).train()
    shutil.rmtree(folder)
    optimizer = torch.optim.AdamW(peer.parameters(), lr=1e-5, fused=True)
    sides = [_padded(texts, setting.device) for texts in (batch.queries, batch.documents)]
    labels = torch.arange(len(batch.query_rows), device=setting.device)

    def step() -> None:
        with torch.autocast(setting.device.type, torch.bfloat16):
            query, document = (
                F.normalize(peer(dict(side))["sentence_embedding"], dim=1) for side in sides
            )
        F.cross_entropy(20 * query.float() @ document.float().T, labels).backward()
        torch.nn.utils.clip_grad_norm_(peer.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def _padded(texts: Any, device: torch.device) -> dict[str, torch.Tensor]:  # noqa: ANN401
    mask = torch.arange(int(texts.sizes.max())) < texts.sizes[:, None]
    ids = torch.zeros(mask.shape, dtype=torch.int64)
    ids[mask] = texts.ids
    return {"input_ids": ids.to(device), "attention_mask": mask.long().to(device)}


def packed_rows(setting: Setting) -> Iterator[Row]:
    """Yield how far packed vectors and gradients are from padded ones, in float32 and bf16."""
    for shape in SHAPES:
        for precision in ("fp32", "bf16"):
            row = {"shape": shape, "type": precision}
            yield attempt(row, partial(_packed_cell, setting, shape, precision))


def _packed_cell(setting: Setting, shape: str, precision: str) -> Row:
    (length,) = setting.pick((300,), (24,))
    found = {}
    for packing, kind in (("padded", "fp32"), ("padded", precision), ("packed", precision)):
        model = build_model(setting, shape, length, packing=packing).eval()
        batch = random_batch(setting, length)
        training = Training(model, batch, precision=kind)
        model.eval()
        loss = training.module.training_step(batch.to(setting.device), 0)
        loss.backward()
        gradients = [one.grad.flatten() for one in model.parameters() if one.grad is not None]
        found[packing, kind] = torch.cat(gradients).double()
    exact = found["padded", "fp32"]
    errors = [
        float((found[packing, precision] - exact).norm() / exact.norm())
        for packing in ("padded", "packed")
    ]
    holds = errors[1] <= 2 * errors[0] + 1e-4
    return {"padded_error": f"{errors[0]:.1e}", "packed_error": f"{errors[1]:.1e}", "holds": holds}


def sync_rows(setting: Setting) -> Iterator[Row]:
    """Yield where the host waits in a step, line by line, and how many kernels a step launches."""
    for shape in SHAPES:
        if setting.device.type != "cuda":
            yield {"shape": shape, "skipped": "needs CUDA: a CPU waits for nothing"}
            continue
        yield from _sync_rows(setting, shape)


def _sync_rows(setting: Setting, shape: str) -> Iterator[Row]:
    (length,) = setting.pick((128,), (24,))
    made: dict[str, Training] = {}

    def build() -> Row:
        training = Training(build_model(setting, shape, length), random_batch(setting, length))
        for _ in range(2):
            training()
        made["training"] = training
        places = waits(training)
        return {"syncs": sum(places.values()), "launches": launches(training), "where": ", ".join(
            f"{place} x {count}" for place, count in places.most_common()
        )}  # fmt: skip

    yield attempt({"shape": shape}, build)


def waits(step: Training) -> Counter[str]:
    """Return the places where a step makes the host wait, as torch warns of them."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return Counter(
        f"{warning.filename.rpartition('site-packages/')[2]}:{warning.lineno}"
        for warning in caught
        if "synchronizing" in str(warning.message)
    )


def launches(step: Training) -> int:
    """Return the kernels that a step launches."""
    with torch.profiler.profile() as profiler:
        step()
        torch.cuda.synchronize()
    return sum("LaunchKernel" in event.name for event in profiler.events())


def profile_rows(setting: Setting) -> Iterator[Row]:
    """Yield what a step of BERT-base spends its time on, and keep its trace."""
    (length,) = setting.pick((512,), (24,))
    found: list[Row] = []

    def work() -> Row:
        training = Training(
            build_model(setting, "BERT-base", length), random_batch(setting, length)
        )
        for _ in range(1 if setting.tiny else 3):
            training()
        cuda = setting.device.type == "cuda"
        with torch.profiler.profile() as profiler:
            training()
            setting.synchronize()
        time = "self_device_time_total" if cuda else "self_cpu_time_total"
        events = sorted(profiler.key_averages(), key=lambda one: -getattr(one, time))
        total = sum(getattr(one, time) for one in events)
        for one in events[: 5 if setting.tiny else KERNELS]:
            found.append({"kernel": one.key[:90], "calls": one.count, "ms": round(getattr(one, time) / 1000, 3)})  # fmt: skip
        return {"kernel": "all", "ms": round(total / 1000, 3), "trace": _keep(setting, profiler)}

    yield attempt({"kernel": "all"}, work)
    yield from found


def _keep(setting: Setting, profiler: torch.profiler.profile) -> str:
    """Keep the trace, if it is small enough to be carried."""
    path = setting.folder / "profile_trace.json"
    profiler.export_chrome_trace(str(path))
    packed = path.with_name("profile_trace.json.gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    if packed.stat().st_size > LARGEST_TRACE:
        packed.unlink()
        return "too large to keep"
    return packed.name
