"""``resnet-lesion models``."""

from __future__ import annotations

import argparse

from resnet_lesion.analyzers.support import supported_models


def models_command(args: argparse.Namespace) -> None:
    n_covered = n_models = 0
    for answer in supported_models(args.pattern, args.workers):
        n_models, n_covered = n_models + 1, n_covered + answer.covered
        if answer.covered:
            paths = "" if answer.path_gradients else f"; no path gradients: {answer.reason}"
            print(f"{answer.name}: {answer.n_blocks} blocks ({', '.join(answer.block_classes)}){paths}", flush=True)
        else:
            print(f"{answer.name}: not covered: {answer.reason}", flush=True)
    print(f"{n_covered} of {n_models} covered.")
