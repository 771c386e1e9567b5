"""The end of the integral's ladder: intervals that its last rung can't explain are halved, and halved again.

Between two neighbouring nodes where F changes otherwise than its slopes say, the polynomial through all nodes gives way
to parabolas through the ends and the middle of the interval, and of its halves, until each explains its part of F. What
even then does not is counted, and named.
"""

import torch
from torch import Tensor

from kn.methods.climbing import Climb, Subset
from kn.methods.curves import Curves, concatenated, discrepancies, on_device
from kn.methods.quadrature import Rule, ladder

HALVINGS = 10  # of an interval between two of the last rung's nodes
STRICTER = 4  # errors of many intervals add up
PARABOLA = ladder("gauss", 1)[0]


def halve(climb: Climb, left: dict[int, tuple[Subset, Curves]], rule: Rule) -> None:
    """Finish what a climb left after its last rung."""
    failed = torch.zeros_like(climb.waiting)
    for number, (subset, curves) in left.items():
        of_paths = climb.layout.prompts[subset.paths]
        for prompt in climb.waiting[:, :, number].any(0).nonzero()[:, 0].tolist():
            alone = climb.layout.subset(torch.tensor([prompt]))
            rows = climb.layout.to_device((of_paths == prompt).nonzero()[:, 0])
            limits = climb.limits[:, prompt, number, None, None] * climb.layout.pieces[prompt] / len(rows)
            integrals, passed = _halved(climb, number, alone.paths, curves[:, rows], rule, limits)
            scores = climb.spread(number, alone, integrals)
            for target in climb.waiting[:, prompt, number].nonzero()[:, 0].tolist():
                climb.scores[target, prompt, number] = scores[target, 0]
                failed[target, prompt, number] = not passed[target]
    climb.certificate.accepted["halved"] = int((climb.waiting & ~failed).sum())
    climb.certificate.accepted["not certified"] = int(failed.sum())
    climb.certificate.failed = [(prompt, layer) for prompt, layer in failed.any(0).nonzero().tolist()]


def _halved(
    climb: Climb, number: int, paths: Tensor, curves: Curves, rule: Rule, limits: Tensor
) -> tuple[Tensor, list[bool]]:
    """The integral of g along each path of a prompt, targets x paths x d_model, and which targets pass in the end."""
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
    asked = ~passed[:, rows, intervals]  # targets x intervals still to be explained
    parabola = on_device(PARABOLA, integrals)[0][0]
    for level in range(HALVINGS):
        middle, size = (begin + end) / 2, (end - begin).to(integrals)
        seen = climb.along([number] * len(rows), paths[rows.cpu()], middle[:, None].cpu())
        three = concatenated([left[:, :, None], seen, right[:, :, None]], 2)
        off, noise = discrepancies(three, PARABOLA, size[:, None])
        passes = (off.abs() - noise <= limits / STRICTER).all(-1)
        added = (asked if level == HALVINGS - 1 else asked & passes) * size
        of_intervals = torch.einsum("n,tjnw->tjw", parabola, three.gradients) * added[..., None]
        of_paths = rows == torch.arange(len(paths), device=device)[:, None]
        integrals = integrals + of_paths.to(integrals) @ of_intervals
        asked = asked & ~passes
        again = asked.any(0).nonzero()[:, 0]
        if not len(again):
            break
        left, seen, right = left[:, again], seen[:, again, 0], right[:, again]
        left, right = concatenated([left, seen], 1), concatenated([seen, right], 1)
        begin, middle, end = begin[again], middle[again], end[again]
        begin, end = torch.cat([begin, middle]), torch.cat([middle, end])
        rows, asked = rows[again].repeat(2), asked[:, again].repeat(1, 2)
    return integrals, (~asked.any(-1)).tolist()
