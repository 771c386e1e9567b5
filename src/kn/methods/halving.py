"""The end of the integral's ladder: intervals that its last rung can't explain are halved, and halved again.

Between two neighbouring nodes where F changes otherwise than its slopes say, the polynomial through all nodes gives way
to parabolas through the ends and the middle of the interval, and of its halves, until each explains its part of F. What
even then does not is counted, and named.
"""

import torch
from torch import Tensor

from kn.methods.climbing import Climb, Curves, discrepancies, joined, placed
from kn.methods.quadrature import Rule, ladder

HALVINGS = 10  # of an interval between two of the last rung's nodes
STRICTER = 4  # errors of many intervals add up
PARABOLA = ladder("gauss", 1)[0]


def halve(climb: Climb, held: dict[int, tuple[Tensor, Curves]], rule: Rule) -> None:
    """Finish what is left of a climb after its last rung."""
    failed = torch.zeros_like(climb.waiting)
    for number, (prompts, curves) in held.items():
        of_paths = climb.prompts[climb.paths_of(prompts)]
        for prompt in climb.waiting[:, :, number].any(0).nonzero()[:, 0].tolist():
            of_prompt = curves[:, climb.to_device((of_paths == prompt).nonzero()[:, 0])]
            integrals, passed = _halved(climb, number, prompt, of_prompt, rule)
            for target in climb.waiting[:, prompt, number].nonzero()[:, 0].tolist():
                climb.scores[target, prompt, number] = climb.spread(number, torch.tensor([prompt]), integrals[target])[
                    0
                ]
                failed[target, prompt, number] = not passed[target]
    climb.certificate.accepted["halved"] = int((climb.waiting & ~failed).sum())
    climb.certificate.accepted["not certified"] = int(failed.sum())
    climb.certificate.failed = [(prompt, layer) for prompt, layer in failed.any(0).nonzero().tolist()]


def _halved(climb: Climb, number: int, prompt: int, curves: Curves, rule: Rule) -> tuple[Tensor, list[bool]]:
    """The integral of g along each path of the prompt, targets x paths x width, and which targets passed in the end."""
    paths = climb.paths_of(torch.tensor([prompt]))
    limits = climb.limits[:, prompt, number, None, None] * climb.pieces[prompt] / len(paths)

    off, noise = discrepancies(curves, rule)
    passed = off.abs() - noise <= limits  # targets x paths x intervals
    if passed.all():  # it is not F that tells against the polynomial
        passed = torch.zeros_like(passed)
    _, between, _ = placed(rule, curves.gradients)
    integrals = torch.einsum("tpi,in,tpnw->tpw", passed.to(between), between, curves.gradients)
    rows, intervals = (~passed).any(0).nonzero(as_tuple=True)
    nodes = torch.tensor(rule.nodes, device=climb.device)
    left, right, begin, end = (
        curves[:, rows, intervals],
        curves[:, rows, intervals + 1],
        nodes[intervals],
        nodes[intervals + 1],
    )
    asked = ~passed[:, rows, intervals]  # targets x intervals that are left
    weights, *_ = placed(PARABOLA, integrals)
    for level in range(HALVINGS):
        middle, size = (begin + end) / 2, (end - begin).to(integrals)
        seen = climb.along(number, paths[rows.cpu()], middle[:, None].cpu())
        three = joined([left[:, :, None], seen, right[:, :, None]], 2)
        off, noise = discrepancies(three, PARABOLA, size[:, None])
        passes = (off.abs() - noise <= limits / STRICTER).all(-1)
        added = (asked if level == HALVINGS - 1 else asked & passes) * size
        of_intervals = torch.einsum("n,tjnw->tjw", weights, three.gradients) * added[..., None]
        of_paths = rows == torch.arange(len(paths), device=climb.device)[:, None]
        integrals = integrals + of_paths.to(integrals) @ of_intervals
        asked = asked & ~passes
        again = asked.any(0).nonzero()[:, 0]
        if not len(again):
            break
        seen = seen[:, :, 0]
        left, right = joined([left[:, again], seen[:, again]], 1), joined([seen[:, again], right[:, again]], 1)
        begin, end = torch.cat([begin[again], middle[again]]), torch.cat([middle[again], end[again]])
        rows, asked = rows[again].repeat(2), asked[:, again].repeat(1, 2)
    return integrals, (~asked.any(-1)).tolist()
