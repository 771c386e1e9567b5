"""The end of the integral's ladder: intervals that its last rung can't explain are halved, again and again.

If F changes between two neighbouring nodes otherwise than its slopes say, the polynomial through all nodes is replaced
there by a parabola through the ends and the middle of the interval, and then of its halves, until every parabola
explains its part of F. Prompts and layers for which this fails are counted and named.
"""

import torch
from torch import Tensor

from kn.methods.climbing import Climb, Subset
from kn.methods.curves import Curves, concatenated, discrepancies, on_device
from kn.methods.quadrature import Rule, ladder

HALVINGS = 10  # of an interval between two of the last rung's nodes
STRICTER = 4  # the limit for an interval is divided by this, since errors of many intervals add up
PARABOLA = ladder("gauss", 1)[0]


def halve(climb: Climb, left: dict[int, tuple[Subset, Curves]], rule: Rule) -> None:
    """Finish what a climb left after its last rung: by layer, the prompts and their curves."""
    failed = torch.zeros_like(climb.waiting)
    for layer, (subset, curves) in left.items():
        prompts = climb.layout.prompts[subset.paths]
        for prompt in climb.waiting[:, :, layer].any(0).nonzero()[:, 0].tolist():
            alone = climb.layout.subset(torch.tensor([prompt]))
            rows = climb.layout.to_device((prompts == prompt).nonzero()[:, 0])
            limits = climb.limits[:, prompt, layer, None, None] * climb.layout.divisors[prompt] / len(rows)
            integrals, passed = _halved(climb, layer, alone.paths, curves[:, rows], rule, limits)
            scores = climb.spread(layer, alone, integrals)
            for target in climb.waiting[:, prompt, layer].nonzero()[:, 0].tolist():
                climb.scores[target, prompt, layer] = scores[target, 0]
                failed[target, prompt, layer] = not passed[target]
    climb.certificate.accepted["halved"] = int((climb.waiting & ~failed).sum())
    climb.certificate.accepted["not certified"] = int(failed.sum())
    climb.certificate.failed = [(prompt, layer) for prompt, layer in failed.any(0).nonzero().tolist()]


def _halved(
    climb: Climb, layer: int, paths: Tensor, curves: Curves, rule: Rule, limits: Tensor
) -> tuple[Tensor, list[bool]]:
    """The integral of g along each path of a prompt, targets x paths x width, and which targets pass at last."""
    device = climb.layout.device
    off, noise = discrepancies(curves, rule)
    passed = off.abs() - noise <= limits  # targets x paths x intervals
    if passed.all():  # F agrees with the polynomial everywhere, so another test failed: halve every interval
        passed = torch.zeros_like(passed)
    _, between = on_device(rule, curves.gradients)
    integrals = torch.einsum("tpi,in,tpnw->tpw", passed.to(between), between, curves.gradients)
    rows, intervals = (~passed).any(0).nonzero(as_tuple=True)
    nodes = torch.tensor(rule.nodes, device=device)
    begin, end = nodes[intervals], nodes[intervals + 1]
    left, right = curves[:, rows, intervals], curves[:, rows, intervals + 1]
    unexplained = ~passed[:, rows, intervals]  # targets x intervals still to be explained
    parabola = on_device(PARABOLA, integrals)[0][0]
    for level in range(HALVINGS):
        middle, size = (begin + end) / 2, (end - begin).to(integrals)
        seen = climb.along([layer] * len(rows), paths[rows.cpu()], middle[:, None].cpu())
        three = concatenated([left[:, :, None], seen, right[:, :, None]], 2)
        off, noise = discrepancies(three, PARABOLA, size[:, None])
        passes = (off.abs() - noise <= limits / STRICTER).all(-1)
        added = (unexplained if level == HALVINGS - 1 else unexplained & passes) * size
        parts = torch.einsum("n,tjnw->tjw", parabola, three.gradients) * added[..., None]
        owners = rows == torch.arange(len(paths), device=device)[:, None]  # paths x intervals
        integrals = integrals + owners.to(integrals) @ parts
        unexplained = unexplained & ~passes
        again = unexplained.any(0).nonzero()[:, 0]
        if not len(again):
            break
        left, seen, right = left[:, again], seen[:, again, 0], right[:, again]
        left, right = concatenated([left, seen], 1), concatenated([seen, right], 1)
        begin, middle, end = begin[again], middle[again], end[again]
        begin, end = torch.cat([begin, middle]), torch.cat([middle, end])
        rows, unexplained = rows[again].repeat(2), unexplained[:, again].repeat(1, 2)
    return integrals, (~unexplained.any(-1)).tolist()
