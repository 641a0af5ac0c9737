"""ABP on several GPUs, cores or machines, evaluated, with a record of it.

torchrun --nproc-per-node 2 -m zsl_lib.parallel CUB --epochs 50 --checkpoint abp.pt

Process 0 saves and evaluates; the same command goes on from the checkpoint. Where there are GPUs, each
process takes one of its own.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from dataclasses import asdict, fields
from pathlib import Path

import torch
import torch.distributed as dist

from zsl_lib import record
from zsl_lib.classify import SyntheticRecogniser
from zsl_lib.data import load
from zsl_lib.device import pick_device
from zsl_lib.errors import DataError
from zsl_lib.files import project_root
from zsl_lib.learn.abp import ABPConfig
from zsl_lib.learn.sharded import ShardedABP
from zsl_lib.metrics import evaluate

SETTINGS = [f for f in fields(ABPConfig) if isinstance(f.default, (int, float, str))]


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    rank = os.environ.get("RANK")
    try:
        if rank is None:
            hint = "start it by torchrun, e.g. torchrun --nproc-per-node 2 -m zsl_lib.parallel"
            raise DataError("zsl_lib.parallel", found="no RANK in the environment", expected="one", hint=hint)
        _join(options.device)
        _run(options, sys.argv[1:] if arguments is None else arguments)
        dist.destroy_process_group()
    except (DataError, ArithmeticError, OSError) as error:
        print(f"process {rank}: {error}" if rank else error, file=sys.stderr, flush=True)
        return 1  # torchrun then ends the others
    return 0


def _join(device: str) -> None:
    """Join the others, with a GPU of one's own where there are GPUs."""
    if pick_device(device).type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl")
    else:
        dist.init_process_group("gloo")


def _run(options: argparse.Namespace, arguments: list[str]) -> None:
    """Learn; on process 0, evaluate and write the record."""
    first, watch = dist.get_rank() == 0, record.Stopwatch()
    data = load(options.dataset, options.root, semantics=options.semantics).scaled()
    config = ABPConfig(**{f.name: getattr(options, f.name) for f in SETTINGS})
    model = ShardedABP(config, seed=options.seed, device=options.device)
    model.fit(data, checkpoint=options.checkpoint, progress=first)
    if not first:
        return
    recogniser = SyntheticRecogniser(model, samples=options.samples, seed=options.seed).remember(data)
    result = evaluate(recogniser, data)
    written = watch.record(
        "parallel",
        data,
        "abp",
        seed=options.seed,
        semantics=options.semantics,
        parameters=asdict(config) | {"samples": options.samples, "processes": model.ranks},
        metrics=result._asdict(),
        selection="none",
        device=model.device,
        command=f"{_torchrun()} -m zsl_lib.parallel {shlex.join(arguments)}",
    ).write(project_root() / options.results_dir)
    print(f"{written.name}: T1 {result.T1:.1f}, H {result.H:.1f}; {watch.seconds():.0f} s")


def _torchrun() -> str:
    here, all_ = (int(os.environ[key]) for key in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
    machines = f"--nnodes {all_ // here} " if all_ > here else ""
    return f"torchrun {machines}--nproc-per-node {here}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="torchrun --nproc-per-node N -m zsl_lib.parallel",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset")
    parser.add_argument("--semantics", default="att")
    parser.add_argument("--root", help="data folder; the environment's ZSL_DATA_DIR by default")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samples", type=int, default=300, help="synthetic features a class")
    parser.add_argument("--checkpoint", type=Path, help="saved after each epoch, and gone on from")
    parser.add_argument("--results-dir", default="_build/results", help="where the record goes")
    for field in SETTINGS:
        name = f"--{field.name.replace('_', '-')}"
        parser.add_argument(name, type=type(field.default), default=field.default)
    return parser


if __name__ == "__main__":
    sys.exit(main())
